"""Adding order and copies to collections: `bind`, `checkpoint`, `clone`, `wait_on`.

Examples
--------
>>> import rasker
>>> x = rasker.delayed(abs)(-1)
>>> clone(x).key != x.key, clone(x).compute(scheduler="sync")
(True, 1)
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from typing import Any

from rasker.base import (
    _flat_keys,
    clone_key,
    get_collection_names,
    replace_name_in_key,
)
from rasker.core import flatten
from rasker.delayed import Delayed
from rasker.delayed_graph import portable
from rasker.highlevelgraph import HighLevelGraph, MaterializedLayer
from rasker.lowering import layer_annotations, lower_graph, references, run_node
from rasker.task_spec import GraphNode, Task, TaskRef
from rasker.tokenize import tokenize
from rasker.traversal import unpack_collections

__all__ = ["bind", "checkpoint", "clone", "wait_on"]


def _nothing(*args: Any) -> None:
    """Needs its arguments and returns nothing."""


def _first(value: Any, *blockers: Any) -> Any:
    """The first argument, once the others are there."""
    return value


def _after(*args: Any) -> Any:
    """Call a function when a blocker is there: function, blocker, arguments, keywords."""
    func, _, arguments, keywords = args
    return func(*arguments, **keywords)


def checkpoint(*collections: Any, split_every: Any = None) -> Delayed:
    """A lazy None that is there when all parts of some collections have been computed.

    Parameters
    ----------
    *collections : collections, or containers of them
    split_every : int or False, default 8
        How many keys one task waits for; False for all.

    Returns
    -------
    Delayed
        Of None.

    Examples
    --------
    >>> import rasker
    >>> checkpoint(rasker.delayed(abs)(-1)).compute(scheduler="sync")
    """
    if split_every is None:
        split_every = 8
    if split_every is not False and (type(split_every) is not int or split_every < 2):
        raise ValueError(f"split_every must be False or an int of 2 or more, not {split_every!r}")
    found, _ = unpack_collections(*collections)
    dsk: dict[Any, Any] = {}
    graphs = [c.__dask_graph__() for c in found]
    keys = [k for c in found for k in _flat_keys(c)]
    token = tokenize("checkpoint", keys, split_every)
    level = 0
    while True:
        width = len(keys) if split_every is False else split_every
        width = max(width, 2)
        parts = [keys[i : i + width] for i in range(0, len(keys), width)] or [[]]
        new = []
        for i, part in enumerate(parts):
            key = f"checkpoint-{token}" if len(parts) == 1 else (f"checkpoint-{token}", level, i)
            dsk[key] = Task(key, _nothing, *[TaskRef(k) for k in part])
            new.append(key)
        keys = new
        level += 1
        if len(keys) == 1:
            break
    name = keys[0]
    label = str(name)
    graph = HighLevelGraph.merge(*graphs, HighLevelGraph({label: dsk}, {label: set()}))
    return Delayed(name, portable(graph))


def _rebuilt(collection: Any, dsk: Mapping[Any, Any], rename: Mapping[str, str]) -> Any:
    rebuild, args = collection.__dask_postpersist__()
    return rebuild(portable(dsk), *args, rename=rename)


def _copied(
    collection: Any, kept: set[Any], seed: Hashable, blocker: Any = None
) -> tuple[HighLevelGraph, dict[str, str]]:
    """The graph of a collection with all keys but `kept` renamed, and the new names."""
    graph = collection.__dask_graph__()
    everything = dict(graph)
    wanted = {k: clone_key(k, seed) for k in everything if k not in kept}
    notes = layer_annotations(graph)
    dsk: dict[Any, Any] = {}
    groups: dict[str, dict[Any, Any]] = {}
    for key, func, args, kwargs in lower_graph(everything, TaskRef):
        new = wanted.get(key, key)
        if func is run_node and isinstance(args[0], GraphNode):
            task = args[0]  # as an argument it would be called too early
        else:
            task = Task(key, func, *args, **(kwargs or {}))
        needs = references((key, func, args, kwargs), TaskRef)
        task = task.substitute(wanted, key=new)
        if blocker is not None and key in wanted and not any(d in wanted for d in needs):
            task = Task(
                new, _after, task.func, TaskRef(blocker), list(task.args), dict(task.kwargs)
            )
        if key in notes:
            groups.setdefault(repr(notes[key]), {})[new] = task
        else:
            dsk[new] = task
    name = f"copy-{tokenize(seed, _flat_keys(collection))}"
    result = HighLevelGraph({name: dsk}, {name: set()})
    old = {clone_key(k, seed): k for k in notes}
    for i, part in enumerate(groups.values()):
        label = f"{name}-{i}"
        note = notes[old[next(iter(part))]] if next(iter(part)) in old else None

        result.layers[label] = MaterializedLayer(part, note)
        result.dependencies[label] = set()
    rename = {n: clone_key(n, seed) for n in get_collection_names(collection)}
    return result, rename


def _seed(seed: Hashable) -> Hashable:
    if seed is not None:
        return seed
    import uuid

    return uuid.uuid4().hex


def _kept_keys(omit: Any) -> set[Any]:
    if omit is None:
        return set()
    found, _ = unpack_collections(omit)
    return {k for c in found for k in c.__dask_graph__()}


def clone(
    *collections: Any, omit: Any = None, seed: Hashable = None, assume_layers: bool = True
) -> Any:
    """Collections with the same values whose tasks are others, so that nothing is shared.

    Parameters
    ----------
    *collections : collections, or containers of them
    omit : collections, optional
        Whose tasks are shared after all.
    seed : hashable, optional
        Equal seeds give equal keys.  Default: a new one each time.
    assume_layers : bool
        Has no meaning here.

    Returns
    -------
    collection, or tuple of such
    """
    kept = _kept_keys(omit)
    chosen = _seed(seed)
    found, repack = unpack_collections(*collections)
    made = [_rebuilt(c, *_copied(c, kept, chosen)) for c in found]
    result = repack(made)
    return result[0] if len(collections) == 1 else result


def bind(
    children: Any,
    parents: Any,
    *,
    omit: Any = None,
    seed: Hashable | None = None,
    assume_layers: bool = True,
    split_every: Any = None,
) -> Any:
    """Copies of `children` that start only when `parents` have been computed.

    Parameters
    ----------
    children : collection, or container of such
    parents : collection, or container of such
    omit : collections, optional
        Below `children`, what is not copied and does not wait.
    seed : hashable, optional
        As for `clone`.
    assume_layers : bool
        Has no meaning here.
    split_every : int or False, default 8
        As for `checkpoint`.

    Returns
    -------
    collection, or container of such
    """
    kept = _kept_keys(omit)
    chosen = _seed(seed)
    found, repack = unpack_collections(children)
    has_parents = bool(unpack_collections(parents)[0])
    blocker = checkpoint(parents, split_every=split_every) if has_parents else None
    made = []
    for c in found:
        graph, rename = _copied(c, kept, chosen, blocker.key if blocker is not None else None)
        if blocker is not None:
            graph = HighLevelGraph.merge(graph, blocker.dask)
        made.append(_rebuilt(c, graph, rename))
    return repack(made)[0]


def wait_on(*collections: Any, split_every: Any = None) -> Any:
    """Collections of which no part is used before all parts of all have been computed.

    Parameters
    ----------
    *collections : collections, or containers of them
    split_every : int or False, default 8
        As for `checkpoint`.

    Returns
    -------
    collection, or tuple of such
    """
    found, repack = unpack_collections(*collections)
    blocker = checkpoint(*collections, split_every=split_every)
    made = []
    for c in found:
        dsk: dict[Any, Any] = {}
        names = get_collection_names(c)
        rename = {n: f"wait_on-{tokenize(n, blocker.key)}" for n in names}
        for key in flatten([c.__dask_keys__()]):
            new = replace_name_in_key(key, rename)
            dsk[new] = Task(new, _first, TaskRef(key), TaskRef(blocker.key))
        name = next(iter(rename.values()))
        graph = HighLevelGraph.merge(
            c.__dask_graph__(), blocker.dask, HighLevelGraph({name: dsk}, {name: set()})
        )
        made.append(_rebuilt(c, graph, rename))
    result = repack(made)
    return result[0] if len(collections) == 1 else result
