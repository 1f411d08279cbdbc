"""Functions and objects to bytes; never imported before something has to be pickled."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle

# Types of these packages carry no code of the user's: the plain pickler knows them, and is fast.
_PLAIN = frozenset(
    {"numpy", "pandas", "pyarrow", "polars", "scipy", "datetime", "decimal", "uuid", "pathlib"}
)


def dumps(value: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None) -> bytes:
    """Pickle `value` so that another process of this user can read it.

    Parameters
    ----------
    value : object
        Anything; functions and classes of ``__main__`` travel by value.
    buffer_callback : callable, optional
        Gets large buffers, which are then left out of the result.

    Returns
    -------
    bytes

    Raises
    ------
    TypeError
        If a part of `value` cannot be pickled; the message names the way to it.
    """
    try:
        kind = type(value)
        if kind.__module__.partition(".")[0] in _PLAIN and getattr(value, "dtype", None) != object:
            try:
                return pickle.dumps(value, 5, buffer_callback=buffer_callback)
            except Exception:
                pass
        pickled: bytes = cloudpickle.dumps(value, 5, buffer_callback=buffer_callback)
        return pickled
    except Exception as error:
        path = _path_to_culprit(value, "value", set(), 0)
        if path is None:
            raise
        message = f"{path} cannot be pickled: {error}; leave it out, or make it inside the task"
        raise TypeError(message) from error


def _fails(value: Any) -> bool:
    try:
        cloudpickle.dumps(value, 5)
    except Exception:
        return True
    return False


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"[{key!r}]", item) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [(f"[{i}]", item) for i, item in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return [("{...}", item) for item in value]
    if hasattr(value, "__closure__") and hasattr(value, "__code__"):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=False)
        parts = [(f".<closure {name}>", cell.cell_contents) for name, cell in cells]
        names = value.__code__.co_names
        return parts + [
            (f".<global {name}>", value.__globals__[name])
            for name in names
            if name in value.__globals__
        ]
    return [(f".{name}", item) for name, item in getattr(value, "__dict__", {}).items()]


def _path_to_culprit(value: Any, path: str, seen: set[int], depth: int) -> str | None:
    """The way to the innermost part that fails by itself; none if `value` does not fail."""
    if id(value) in seen or depth > 10 or not _fails(value):
        return None
    seen.add(id(value))
    for step, part in _parts(value):
        found = _path_to_culprit(part, path + step, seen, depth + 1)
        if found is not None:
            return found
    return f"`{path}` ({type(value).__module__}.{type(value).__qualname__})"
