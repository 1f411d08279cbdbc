"""A `concurrent.futures.Executor` over a client."""

from __future__ import annotations

import weakref
from concurrent import futures as standard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

_ALLOWED = frozenset(
    "pure workers resources retries priority fifo_timeout allow_other_workers".split()
)


class ClientExecutor(standard.Executor):
    """Runs calls on the cluster of a client; made by `Client.get_executor`.

    Parameters
    ----------
    client : Client
    **kwargs
        Arguments of `Client.submit` for all calls.  Calls are not pure unless ``pure=True``.

    Examples
    --------
    >>> with client.get_executor() as executor:  # doctest: +SKIP
    ...     executor.submit(pow, 2, 10).result()
    1024
    """

    def __init__(self, client: Any, **kwargs: Any) -> None:
        unknown = [k for k in kwargs if k not in _ALLOWED]
        if unknown:
            raise TypeError(
                f"get_executor has no argument {', '.join(map(repr, unknown))}; "
                f"it has {', '.join(sorted(_ALLOWED))}"
            )
        self._client = client
        self._kwargs = {"pure": False, **kwargs}
        self._shutdown = False
        self._held: weakref.WeakSet[Any] = weakref.WeakSet()

    def _wrap(self, future: Any) -> standard.Future[Any]:
        outer: standard.Future[Any] = standard.Future()
        self._held.add(future)

        def ended(inner: Any = future) -> None:
            if not outer.set_running_or_notify_cancel():
                return
            if inner.cancelled():
                outer.set_exception(standard.CancelledError(f"task {inner.key!r} was cancelled"))
                return
            error = inner.failure(None)
            if error is not None:
                outer.set_exception(error)
                return
            try:
                outer.set_result(inner.value(None))
            except BaseException as e:
                outer.set_exception(e)

        def on_outer(done: standard.Future[Any], inner: Any = future) -> None:
            if done.cancelled():
                inner.session.cancel([inner], "its executor's future was cancelled")

        outer.add_done_callback(on_outer)
        future.add_callback(ended)
        return outer

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> standard.Future[Any]:
        """Run a call; as `concurrent.futures.Executor.submit`.

        Raises
        ------
        RuntimeError
            When called after `shutdown`.
        """
        if self._shutdown:
            raise RuntimeError("executor is shut down; make a new one with client.get_executor()")
        return self._wrap(self._client.submit(_bound(fn, kwargs), *args, **self._kwargs))

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        """Results of a function over iterables, in order; as `concurrent.futures.Executor.map`.

        Parameters
        ----------
        fn : callable
        *iterables : iterable
        timeout : float, seconds, optional
            For each result, from the call.
        chunksize : int
            Has no meaning here.

        Raises
        ------
        TimeoutError
            While iterating, if a result takes longer.
        """
        from time import monotonic

        if self._shutdown:
            raise RuntimeError("executor is shut down; make a new one with client.get_executor()")
        end = None if timeout is None else monotonic() + timeout
        made = self._client.map(fn, *[list(x) for x in iterables], **self._kwargs)

        def results() -> Iterator[Any]:
            for i in range(len(made)):
                left = None if end is None else max(0.0, end - monotonic())
                yield made[i].value(left)

        return results()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls; the cluster stays.

        Parameters
        ----------
        wait : bool, default True
            Wait for the calls that were made.
        cancel_futures : bool, default False
            Cancel those that have not ended.
        """
        if self._shutdown:
            return
        self._shutdown = True
        held = [f for f in self._held if not f.done()]
        if not held:
            return
        if cancel_futures:
            self._client._session.cancel(held, "its executor was shut down")
        elif wait:
            self._client._session.wait(held, len(held), None)


def _bound(fn: Callable[..., Any], kwargs: dict[str, Any]) -> Callable[..., Any]:
    # Keywords of the call must not be taken for keywords of `Client.submit`.
    if not kwargs:
        return fn
    from functools import partial

    return partial(fn, **kwargs)
