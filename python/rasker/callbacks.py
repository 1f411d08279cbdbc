"""Functions that are called while a local scheduler runs a graph.

Examples
--------
>>> import rasker
>>> class Names(Callback):
...     def _pretask(self, key, dsk, state):
...         print("run", key)
>>> with Names():
...     rasker.get({"x": (sum, [1, 2])}, "x")
run x
3
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, ClassVar

__all__ = ["Callback", "add_callbacks", "local_callbacks", "normalize_callback", "unpack_callbacks"]

_FIELDS = ("start", "start_state", "pretask", "posttask", "finish")


class Callback:
    """Hooks into the local schedulers, as a context manager or registered for good.

    Give functions, or derive and define methods ``_start``, ``_start_state``, ``_pretask``,
    ``_posttask``, ``_finish``.

    Parameters
    ----------
    start : callable(dsk), optional
        Called before the graph is looked at.
    start_state : callable(dsk, state), optional
        Called when it is clear what will run; ``state`` is a dict with 'dependencies' (key to set
        of keys), 'waiting', 'ready', 'running', 'finished', 'cache', 'released'.
    pretask : callable(key, dsk, state), optional
        Called before each task.
    posttask : callable(key, result, dsk, state, worker_id), optional
        Called after each task; `worker_id` says which thread or process.
    finish : callable(dsk, state, failed), optional
        Called at the end, also after an error.

    Notes
    -----
    With ``scheduler="processes"`` tasks run elsewhere: `posttask` gets None for the result, and
    `pretask` cannot be had.
    """

    active: ClassVar[set[tuple[Any, ...]]] = set()

    def __init__(
        self,
        start: Callable[..., Any] | None = None,
        start_state: Callable[..., Any] | None = None,
        pretask: Callable[..., Any] | None = None,
        posttask: Callable[..., Any] | None = None,
        finish: Callable[..., Any] | None = None,
    ) -> None:
        given = (start, start_state, pretask, posttask, finish)
        for name, func in zip(_FIELDS, given, strict=True):
            if func is not None:
                setattr(self, "_" + name, func)

    @property
    def _callback(self) -> tuple[Any, ...]:
        return tuple([getattr(self, "_" + name, None) for name in _FIELDS])

    def __enter__(self) -> Any:
        self._context = add_callbacks(self)
        self._context.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._context.__exit__(*exc)

    def register(self) -> None:
        """Take part in all computations from now on."""
        Callback.active.add(self._callback)

    def unregister(self) -> None:
        """Take part no more.

        Raises
        ------
        KeyError
            If it was not registered.
        """
        Callback.active.remove(self._callback)


def normalize_callback(cb: Any) -> tuple[Any, ...]:
    """The five functions of a Callback, or of a tuple of them."""
    if isinstance(cb, Callback):
        return cb._callback
    if isinstance(cb, tuple):
        return cb
    raise TypeError(f"callbacks must be Callback or tuple, not {type(cb).__name__}")


def unpack_callbacks(cbs: Iterable[Any]) -> tuple[list[Any], ...]:
    """Five lists of functions, one for each hook."""
    tuples = [normalize_callback(cb) for cb in cbs]
    return tuple([[t[i] for t in tuples if t[i] is not None] for i in range(5)])


class add_callbacks:  # noqa: N801 - Dask's public name
    """Let callbacks take part while a ``with`` block runs.

    Parameters
    ----------
    *callbacks : Callback or tuple of five functions
    """

    def __init__(self, *callbacks: Any) -> None:
        self.callbacks = [normalize_callback(c) for c in callbacks]
        Callback.active.update(self.callbacks)

    def __enter__(self) -> None:
        return

    def __exit__(self, *exc: object) -> None:
        for c in self.callbacks:
            Callback.active.discard(c)


class local_callbacks:  # noqa: N801 - Dask's public name
    """The callbacks of one run, taken out meanwhile so that a run inside it is quiet."""

    def __init__(self, callbacks: Iterable[Any] | None = None) -> None:
        self._own = callbacks

    def __enter__(self) -> list[Any]:
        self._took = self._own is None
        if self._own is not None:
            return list(self._own)
        self._active = set(Callback.active)
        Callback.active.clear()
        return list(self._active)

    def __exit__(self, *exc: object) -> None:
        if self._took:
            Callback.active.update(self._active)
