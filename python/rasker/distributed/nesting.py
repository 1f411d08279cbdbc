"""Futures inside nested containers: finding them, and putting values in their places."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

from rasker.distributed.future import Future
from rasker.distributed.future_list import FutureList

_MISSING = object()


def collect_futures(x: Any) -> list[Any]:
    """All futures inside lists, tuples, sets and dicts, each once."""
    found: dict[Any, None] = {}
    stack = [x]
    while stack:
        item = stack.pop()
        if isinstance(item, Future):
            found[item] = None
        elif isinstance(item, (list, tuple, set, frozenset, FutureList)):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item.values())
    return list(found)


def put_values(x: Any, values: dict[Any, Any]) -> Any:
    """`x` with values in place of futures; items without a value are left out.

    Parameters
    ----------
    x : nested containers
    values : dict of future to value
    """
    result = _put(x, values)
    return None if result is _MISSING else result


def _put(x: Any, values: dict[Any, Any]) -> Any:
    if isinstance(x, Future):
        return values.get(x, _MISSING)
    if isinstance(x, FutureList):
        x = list(x)
    if isinstance(x, (list, tuple, set, frozenset)):
        kept = [v for v in [_put(i, values) for i in x] if v is not _MISSING]
        if hasattr(type(x), "_fields"):
            return type(x)(*kept)
        return type(x)(kept) if type(x) in (list, tuple, set, frozenset) else kept
    if isinstance(x, dict):
        pairs = [(k, _put(v, values)) for k, v in x.items()]
        return {k: v for k, v in pairs if v is not _MISSING}
    return x
