"""Arguments of lazy calls that are rare: slices, dataclasses, other collections."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

from rasker import traversal
from rasker.core import quote
from rasker.delayed import _LEAF_TYPES, Delayed, Nested, _argument, _call, _is_lazy
from rasker.tokenize import tokenize


def rare_argument(x: Any, cls: type) -> Any:
    if cls is slice:
        parts = [_argument(p) for p in (x.start, x.stop, x.step)]
        return _call(slice, parts) if any(map(_is_lazy, parts)) else x
    if traversal.is_dask_collection(x):
        return finalized(x)
    if hasattr(cls, "__next__"):
        return _argument(list(x))
    if cls.__name__ == "OrderedDict":
        pairs = _argument(list(x.items()))
        return _call(cls, (pairs,)) if _is_lazy(pairs) else x
    if traversal.is_namedtuple_instance(x):
        parts = [_argument(p) for p in x]
        return _call(cls, parts) if any(map(_is_lazy, parts)) else x
    if traversal.is_dataclass_instance(x):
        fields = {
            n: _argument(getattr(x, n, None)) for n in getattr(cls, "__dataclass_fields__", ())
        }
        lazy = {n: v for n, v in fields.items() if _is_lazy(v)}
        return _call(_with_fields, (_without(x, lazy), Nested(lazy))) if lazy else x
    _LEAF_TYPES.add(cls)
    return x


def _without(x: Any, lazy: Mapping[str, Any]) -> Any:
    """A copy of a dataclass instance whose lazy fields are None, to be filled by the task."""
    return traversal.rebuild_dataclass(x, dict.fromkeys(lazy))


def _with_fields(x: Any, values: dict[str, Any]) -> Any:
    return traversal.rebuild_dataclass(x, values)


def finalized(collection: Any) -> Delayed:
    """The final value of any collection, as a `Delayed`."""
    from rasker.base import collections_to_dsk

    finalize, extra = collection.__dask_postcompute__()
    graph = collections_to_dsk([collection])
    key = "finalize-" + tokenize(collection)
    keys = collection.__dask_keys__()
    graph[key] = (finalize, keys, *map(quote, extra))
    return Delayed(key, graph)
