"""Finding collections inside nested containers, and putting values in their places."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LEAVES = frozenset((str, int, float, bool, bytes, complex, type(None), slice, range))


def is_dask_collection(x: object) -> bool:
    """True if `x` answers the collection protocol and has a graph.

    Examples
    --------
    >>> import rasker
    >>> is_dask_collection(rasker.delayed(1)), is_dask_collection(1)
    (True, False)
    """
    cls = type(x)
    if cls in _LEAVES or isinstance(x, type):
        return False
    if getattr(cls, "__dask_graph__", None) is None and not _on_instance(x):
        return False
    # To ask Dask's own for their graphs may take long, and the answer is always yes.
    if (getattr(cls, "__module__", "") or "").partition(".")[0] in ("dask", "rasker"):
        return True
    return x.__dask_graph__() is not None  # type: ignore[attr-defined]


def _on_instance(x: object) -> bool:
    # Wrappers forward the protocol through __getattr__.
    try:
        return callable(getattr(x, "__dask_graph__", None))
    except Exception:
        return False


def is_namedtuple_instance(obj: object) -> bool:
    """True for instances of classes made by `collections.namedtuple`."""
    return isinstance(obj, tuple) and hasattr(type(obj), "_fields")


def is_dataclass_instance(obj: object) -> bool:
    """True for instances of dataclasses; `dataclasses` itself is not imported for it."""
    return hasattr(type(obj), "__dataclass_fields__")


def unpack_collections(
    *args: Any, traverse: bool = True
) -> tuple[list[Any], Callable[[Any], tuple[Any, ...]]]:
    """Take the collections out of nested containers.

    Parameters
    ----------
    *args : object
        Collections, containers of them, and others.
    traverse : bool, default True
        Look into list, tuple, set, dict, OrderedDict, namedtuples, dataclasses and iterators.

    Returns
    -------
    collections : list
        Each once.
    repack : callable
        Given one object per collection, returns `args` with those in their places.

    Examples
    --------
    >>> import rasker
    >>> found, repack = unpack_collections([rasker.delayed(1), 2])
    >>> len(found), repack(["here"])
    (1, (['here', 2],))
    """
    found: list[Any] = []
    places: dict[int, int] = {}

    def unpack(x: Any) -> Any:
        """How to rebuild `x`; None where there is nothing in it to replace."""
        cls = type(x)
        if cls in _LEAVES:
            return None
        if is_dask_collection(x):
            place = places.get(id(x))
            if place is None:
                place = places[id(x)] = len(found)
                found.append(x)
            return lambda values: values[place]
        if not traverse:
            return None
        return _unpack_container(x, cls, unpack)

    rebuild = [unpack(a) for a in args]

    def repack(values: Any) -> tuple[Any, ...]:
        values = list(values)
        return tuple([a if r is None else r(values) for a, r in zip(args, rebuild, strict=True)])

    return found, repack


def _unpack_container(x: Any, cls: type, unpack: Callable[[Any], Any]) -> Any:
    if hasattr(cls, "__next__"):
        x, cls = list(x), list  # an iterator can be read once, so its items are kept
        build: Callable[[list[Any]], Any] = list
        items = x
        always = True
    elif cls in (list, tuple, set, frozenset):
        items, build, always = list(x), cls, False
    elif cls is dict or cls.__name__ == "OrderedDict":
        items = [p for pair in x.items() for p in pair]
        always = False

        def build(parts: list[Any]) -> Any:
            return cls(zip(parts[::2], parts[1::2], strict=True))
    elif is_namedtuple_instance(x):
        items, always = list(x), False

        def build(parts: list[Any]) -> Any:
            return cls(*parts)
    elif is_dataclass_instance(x):
        return _unpack_dataclass(x, unpack)
    else:
        return None
    rules = [unpack(i) for i in items]
    if not always and not any(rules):
        return None
    return lambda values: build(
        [i if r is None else r(values) for i, r in zip(items, rules, strict=True)]
    )


def _unpack_dataclass(x: Any, unpack: Callable[[Any], Any]) -> Any:
    import dataclasses

    rules = {}
    for f in dataclasses.fields(x):
        rule = unpack(getattr(x, f.name, None))
        if rule is not None:
            rules[f.name] = rule
    if not rules:
        return None
    return lambda values: rebuild_dataclass(x, {n: r(values) for n, r in rules.items()})


def rebuild_dataclass(x: Any, changed: dict[str, Any]) -> Any:
    """A copy of a dataclass instance with some fields exchanged, without calling ``__init__``."""
    import copy

    new = copy.copy(x)
    for name, value in changed.items():
        object.__setattr__(new, name, value)
    return new
