"""`annotate`: say how the tasks made inside a ``with`` block are to be run."""

from __future__ import annotations

from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from rasker._native import Options

# None where no block is open: the common case costs one look.
current: ContextVar[dict[str, Any] | None] = ContextVar("rasker annotations", default=None)


class annotate:  # noqa: N801 - Dask's public name
    """Annotate the tasks of collections that are made inside a ``with`` block.

    Parameters
    ----------
    workers : str or list of str, optional
        The workers that may run them, by address, name or host.
    allow_other_workers : bool, default False
        Make `workers` a preference.
    resources : dict of str to float, optional
        What a worker must have free.
    priority : float, optional
        Higher runs earlier.
    retries : int, optional
        How many times a failed task is tried again.
    **annotations
        Others are kept with the tasks and have no meaning to the schedulers of this package.
        A value may be a function of the key.

    Raises
    ------
    TypeError
        When called, if a value has the wrong type.

    Examples
    --------
    >>> with annotate(priority=10, retries=2):
    ...     sorted(get_annotations().items())
    [('priority', 10), ('retries', 2)]
    """

    def __init__(self, **annotations: Any) -> None:
        for name, check, wanted in _CHECKS:
            value = annotations.get(name)
            if value is not None and not callable(value) and not check(value):
                raise TypeError(
                    f"annotation {name!r} must be {wanted}, not {type(value).__name__} {value!r}"
                )
        self._annotations = annotations
        self._tokens: list[Any] = []

    def __enter__(self) -> None:
        self._tokens.append(current.set({**(current.get() or {}), **self._annotations}))

    def __exit__(self, *exc: object) -> None:
        current.reset(self._tokens.pop())

    def __call__(self, func: Any) -> Any:
        import functools

        @functools.wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with annotate(**self._annotations):
                return func(*args, **kwargs)

        return wrapper


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def _is_workers(x: Any) -> bool:
    return isinstance(x, (str, list, tuple, set))


def _is_count(x: Any) -> bool:
    return isinstance(x, int) and x >= 0


def _is_dict(x: Any) -> bool:
    return isinstance(x, dict)


def _is_bool(x: Any) -> bool:
    return isinstance(x, bool)


_CHECKS = (
    ("workers", _is_workers, "a str or a list of str"),
    ("retries", _is_count, "an int of 0 or more"),
    ("priority", _is_number, "a number"),
    ("resources", _is_dict, "a dict of str to float"),
    ("allow_other_workers", _is_bool, "a bool"),
)


def get_annotations() -> dict[str, Any]:
    """The annotations in force here.

    Examples
    --------
    >>> get_annotations()
    {}
    """
    return dict(current.get() or {})


def worker_list(workers: Any) -> list[str] | None:
    """Names of workers as the engine takes them."""
    if workers is None:
        return None
    if isinstance(workers, (str, int)):
        return [str(workers)]
    return [str(w) for w in workers]


def make_options(
    *,
    priority: float = 0,
    retries: int | None = 0,
    workers: Any = None,
    allow_other_workers: bool | None = False,
    resources: Mapping[str, float] | None = None,
    pure: bool = True,
    **others: Any,
) -> Options | None:
    """The engine's options; None where everything is at its default."""
    if not (priority or retries or workers or resources or not pure):
        return None
    from rasker._native import Options

    return Options(
        priority=priority or 0,
        retries=retries or 0,
        workers=worker_list(workers),
        allow_other_workers=bool(allow_other_workers),
        resources=resources,
        pure=pure,
    )


def options_by_key(
    annotations: Mapping[Any, Mapping[str, Any]] | None, **defaults: Any
) -> dict[Any, Options] | None:
    """The engine's options for annotated keys.

    Parameters
    ----------
    annotations : mapping of key to mapping, optional
    **defaults
        For what an annotation does not say.
    """
    if not annotations:
        return None
    made: dict[str, Options | None] = {}
    result: dict[Any, Options] = {}
    for key, values in annotations.items():
        # Many keys share few combinations, and the engine shares the object.
        name = repr(sorted(values.items(), key=repr))
        if name not in made:
            made[name] = make_options(**{**defaults, **values})
        options = made[name]
        if options is not None:
            result[key] = options
    return result or None
