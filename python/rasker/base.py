"""What all collections share: `compute`, `persist`, `optimize`, `visualize`, and the protocol.

A *collection* is any object with the methods ``__dask_graph__``, ``__dask_keys__``,
``__dask_postcompute__`` and ``__dask_postpersist__``; those of Dask itself are collections here
too.

Examples
--------
>>> import rasker
>>> x = rasker.delayed(sum)([1, 2])
>>> compute({"total": x, "other": 5}, scheduler="sync")
({'total': 3, 'other': 5},)
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

from rasker.annotations import annotate as annotate
from rasker.annotations import get_annotations as get_annotations
from rasker.core import flatten
from rasker.held import hide_futures
from rasker.schedulers import get_scheduler as get_scheduler
from rasker.schedulers import named_schedulers as named_schedulers
from rasker.schedulers import runner_of
from rasker.tokenize import TokenizationError as TokenizationError
from rasker.tokenize import normalize_token as normalize_token
from rasker.tokenize import tokenize as tokenize
from rasker.traversal import is_dask_collection as is_dask_collection
from rasker.traversal import unpack_collections as unpack_collections

__all__ = [
    "DaskMethodsMixin",
    "annotate",
    "clone_key",
    "collections_to_dsk",
    "compute",
    "compute_as_if_collection",
    "get_annotations",
    "get_collection_names",
    "get_name_from_key",
    "get_scheduler",
    "is_dask_collection",
    "named_schedulers",
    "normalize_token",
    "optimize",
    "persist",
    "replace_name_in_key",
    "tokenize",
    "unpack_collections",
    "visualize",
]


class DaskMethodsMixin:
    """Gives a class that answers the protocol the methods `compute`, `persist`, `visualize`."""

    __slots__ = ("__weakref__",)

    def compute(self, **kwargs: Any) -> Any:
        """Compute the collection; the keywords are those of `rasker.compute`.

        Returns
        -------
        object
            The value in memory.
        """
        (result,) = compute(self, traverse=False, **kwargs)
        return result

    def persist(self, **kwargs: Any) -> Any:
        """Compute the collection and keep it a collection; keywords as for `rasker.persist`.

        Returns
        -------
        collection
            Of the same kind; its graph holds values, or futures with a client.
        """
        (result,) = persist(self, traverse=False, **kwargs)
        return result

    def visualize(
        self, filename: str | None = "mydask", format: str | None = None, **kwargs: Any
    ) -> Any:
        """Draw the graph; keywords as for `rasker.visualize`."""
        return visualize(self, filename=filename, format=format, **kwargs)


def _optimizer(collection: Any) -> Callable[..., Any] | None:
    return getattr(collection, "__dask_optimize__", None)


def _merged(graphs: list[Any]) -> Any:
    if len(graphs) == 1:
        return graphs[0]
    merge = getattr(type(graphs[0]), "merge", None)
    if merge is not None and all(type(g) is type(graphs[0]) for g in graphs):
        return merge(*graphs)
    result: dict[Any, Any] = {}
    for g in graphs:
        result.update(g)
    return result


def _optimized(collections: Iterable[Any], optimize_graph: bool) -> list[Any]:
    """One graph for each group of collections that share an optimizer."""
    groups: dict[Any, list[Any]] = {}
    for c in collections:
        groups.setdefault(_optimizer(c) if optimize_graph else None, []).append(c)
    graphs = []
    for optimizer, members in groups.items():
        graph = _merged([c.__dask_graph__() for c in members])
        if optimizer is not None:
            graph, held = hide_futures(graph)
            graph = optimizer(graph, [c.__dask_keys__() for c in members])
            if held:
                graphs.append(held)
        graphs.append(graph)
    return graphs


def collections_to_dsk(
    collections: Iterable[Any], optimize_graph: bool = True, **kwargs: Any
) -> dict[Any, Any]:
    """One plain graph of many collections.

    Parameters
    ----------
    collections : iterable of collection
    optimize_graph : bool, default True
        Let each kind of collection rewrite its part first.

    Returns
    -------
    dict
        Keys to tasks and values.
    """
    result: dict[Any, Any] = {}
    for graph in _optimized(collections, optimize_graph):
        result.update(graph)
    return result


class Lowering:
    """The graphs of some collections, ready to become calls of any dialect of references."""

    def __init__(self, collections: Iterable[Any], optimize_graph: bool = True) -> None:
        from rasker.delayed import Delayed

        self.delayed: list[Any] = []
        others: list[Any] = []
        for c in collections:
            (self.delayed if isinstance(c, Delayed) else others).append(c)
        self.graphs = _optimized(others, optimize_graph) if others else []
        from rasker import config

        #: Whether chains of calls may run as one task.
        self.fuse = optimize_graph and config.get("optimization.fuse.active", None) is not False

    def __call__(self, ref: type) -> tuple[list[Any], dict[Any, dict[str, Any]]]:
        """The calls and the annotations by key."""
        from rasker.delayed_graph import lower
        from rasker.lowering import layer_annotations, lower_graph

        if not self.graphs:
            return lower(self.delayed, ref)
        calls: dict[Any, Any] = {}
        annotations: dict[Any, dict[str, Any]] = {}
        for graph in self.graphs:
            for call in lower_graph(graph, ref):
                calls[call[0]] = call
            annotations.update(layer_annotations(graph))
        if self.delayed:
            more, notes = lower(self.delayed, ref)
            for call in more:
                calls[call[0]] = call
            annotations.update(notes)
        return list(calls.values()), annotations


def _flat_keys(collection: Any) -> list[Any]:
    return list(flatten([collection.__dask_keys__()]))


def _run(
    schedule: Callable[..., Any], collections: list[Any], optimize_graph: bool, **kwargs: Any
) -> dict[Any, Any]:
    """The values of all keys of some collections."""
    runner = runner_of(schedule)
    flat = list(dict.fromkeys([k for c in collections for k in _flat_keys(c)]))
    if runner is not None:
        values = runner(Lowering(collections, optimize_graph), flat, **kwargs)
    else:
        values = schedule(collections_to_dsk(collections, optimize_graph), flat, **kwargs)
    return dict(zip(flat, values, strict=True))


def _nested(keys: Any, values: Mapping[Any, Any]) -> Any:
    if isinstance(keys, list):
        return [_nested(k, values) for k in keys]
    return values[keys]


def finalize_value(collection: Any, values: Mapping[Any, Any]) -> Any:
    """The final value of a collection from the values of its keys."""
    finalize, extra = collection.__dask_postcompute__()
    return finalize(_nested(collection.__dask_keys__(), values), *extra)


def _refuse_get(get: Any) -> None:
    if get is not None:
        raise TypeError("the keyword get= has been removed; use scheduler=, which takes the same")


def compute(
    *args: Any,
    traverse: bool = True,
    optimize_graph: bool = True,
    scheduler: Any = None,
    get: None = None,
    **kwargs: Any,
) -> tuple[Any, ...]:
    """Compute several collections at once; what they share is computed once.

    Parameters
    ----------
    *args : object
        Collections, also inside lists, tuples, sets, dicts and dataclasses.  Other objects come
        back as they are.
    traverse : bool, default True
        Look for collections inside builtin containers.
    optimize_graph : bool, default True
        Let each kind of collection rewrite its graph first.
    scheduler : str, Client, executor or callable, optional
        ``'threads'``, ``'processes'``, ``'sync'``, a client, a `concurrent.futures.Executor`, or a
        function of graph and keys.  Default: the configuration key ``scheduler``, then the current
        client, then what the collections prefer.
    **kwargs
        For the scheduler: `num_workers`, `pool`.

    Returns
    -------
    tuple
        One value per argument.

    Raises
    ------
    ValueError
        When called, if the scheduler is not known, or the graph has a cycle.
    Exception
        What a task raised.

    Examples
    --------
    >>> import rasker
    >>> a = rasker.delayed(abs)(-1)
    >>> compute(a, [a, 2], scheduler="sync")
    (1, [1, 2])
    """
    _refuse_get(get)
    collections, repack = unpack_collections(*args, traverse=traverse)
    if not collections:
        return args
    schedule = get_scheduler(scheduler=scheduler, collections=collections)
    values = _run(schedule, collections, optimize_graph, **kwargs)
    return tuple(repack([finalize_value(c, values) for c in collections]))


def compute_as_if_collection(
    cls: type, dsk: Any, keys: Any, scheduler: Any = None, get: None = None, **kwargs: Any
) -> Any:
    """Run a graph with the optimizer and the default scheduler of a class of collections.

    Returns
    -------
    object
        The values, in the nesting of `keys`, as tuples.
    """
    from rasker.local import nested_get
    from rasker.lowering import layer_annotations, lower_graph

    _refuse_get(get)
    schedule = get_scheduler(scheduler=scheduler, cls=cls)
    optimizer = _optimizer(cls)
    if optimizer is not None:
        dsk = optimizer(dsk, keys)
    flat = list(dict.fromkeys(flatten(keys))) if isinstance(keys, list) else [keys]
    runner = runner_of(schedule)
    if runner is None:
        return schedule(dsk, keys, **kwargs)

    def lower(ref: type) -> Any:
        return lower_graph(dsk, ref), layer_annotations(dsk)

    values = runner(lower, flat, **kwargs)
    return nested_get(keys, dict(zip(flat, values, strict=True)))


def _kept_values(collection: Any, values: Mapping[Any, Any]) -> dict[Any, Any]:
    """The graph of a collection that is computed: its keys and their values."""
    from rasker.delayed import Delayed
    from rasker.task_spec import DataNode

    keys = _flat_keys(collection)
    if isinstance(collection, Delayed):
        # A tuple that starts with a function is a value here, and a task in a graph.
        return {k: DataNode(k, values[k]) for k in keys}
    return {k: values[k] for k in keys}


def _rebuild(collection: Any, graph: Mapping[Any, Any]) -> Any:
    rebuild, state = collection.__dask_postpersist__()
    return rebuild(graph, *state)


def persist(
    *args: Any,
    traverse: bool = True,
    optimize_graph: bool = True,
    scheduler: Any = None,
    **kwargs: Any,
) -> tuple[Any, ...]:
    """Compute several collections and keep them collections.

    With a client this returns at once, and the graph of each result holds futures; without one it
    waits, and the graph holds the values.

    Parameters
    ----------
    *args, traverse, optimize_graph, scheduler, **kwargs
        As for `compute`.

    Returns
    -------
    tuple
        One collection, or object, per argument.

    Examples
    --------
    >>> import rasker
    >>> (x,) = persist(rasker.delayed(abs)(-1), scheduler="sync")
    >>> x.compute(scheduler="sync")
    1
    """
    collections, repack = unpack_collections(*args, traverse=traverse)
    if not collections:
        return args
    schedule = get_scheduler(scheduler=scheduler, collections=collections)
    client = getattr(schedule, "__self__", None)
    if client is not None and callable(getattr(client, "persist", None)):
        kept = client.persist(collections, optimize_graph=optimize_graph, **kwargs)
        return tuple(repack(kept))
    values = _run(schedule, collections, optimize_graph, **kwargs)
    made = [_rebuild(c, _kept_values(c, values)) for c in collections]
    return tuple(repack(made))


def optimize(*args: Any, traverse: bool = True, **kwargs: Any) -> tuple[Any, ...]:
    """Equivalent collections that share one graph, rewritten to run faster.

    Parameters
    ----------
    *args, traverse
        As for `compute`.

    Returns
    -------
    tuple
        One collection, or object, per argument; lazy.
    """
    collections, repack = unpack_collections(*args, traverse=traverse)
    if not collections:
        return args
    dsk = collections_to_dsk(collections, True)
    return tuple(repack([_rebuild(c, dsk) for c in collections]))


def visualize(
    *args: Any,
    filename: str | None = "mydask",
    traverse: bool = True,
    optimize_graph: bool = False,
    maxval: float | None = None,
    engine: str | None = None,
    format: str | None = None,
    **kwargs: Any,
) -> Any:
    """Draw the graph of several collections.

    Parameters
    ----------
    *args, traverse
        As for `compute`.
    filename : str or None, default 'mydask'
        Where to write, without its ending; None writes nothing.
    optimize_graph : bool, default False
        Draw the graph that would run.
    maxval : float, optional
        Has a meaning only for Dask's colors, and none here.
    engine : {'graphviz', 'text'}, optional
        Default: the configuration key ``visualization.engine``; else graphviz where the program
        ``dot`` is installed, and text where it is not.
    format : str, default 'svg'
        What ``dot`` is to write: 'svg', 'png', 'pdf', 'dot'.
    **kwargs
        Attributes of the drawing, for instance ``rankdir='LR'``.

    Returns
    -------
    object
        An object with the representations that a notebook shows; `str` of it is the text.
    """
    from rasker import dot

    collections, _ = unpack_collections(*args, traverse=traverse)
    dsk = collections_to_dsk(collections, optimize_graph)
    for a in args:
        if isinstance(a, dict) and not collections:
            dsk.update(a)
    return dot.draw(dsk, filename=filename, format=format, engine=engine, **kwargs)


def get_name_from_key(key: Any) -> str:
    """The name of the collection that a key belongs to.

    Examples
    --------
    >>> get_name_from_key("foo"), get_name_from_key(("foo-123", 1, 2))
    ('foo', 'foo-123')
    """
    if isinstance(key, tuple) and key and isinstance(key[0], str):
        return key[0]
    if isinstance(key, str):
        return key
    raise TypeError(f"key must be a str or a tuple that starts with one, not {key!r}")


def get_collection_names(collection: Any) -> set[str]:
    """The names in the keys of a collection.

    Examples
    --------
    >>> import rasker
    >>> get_collection_names(rasker.delayed(1, name="one"))
    {'one'}
    """
    if not is_dask_collection(collection):
        raise TypeError(f"object of type {type(collection).__name__} is not a collection")
    return {get_name_from_key(k) for k in flatten([collection.__dask_keys__()])}


def replace_name_in_key(key: Any, rename: Mapping[str, str]) -> Any:
    """A key with its name exchanged.

    Examples
    --------
    >>> replace_name_in_key(("foo", 1), {"foo": "bar"})
    ('bar', 1)
    """
    if isinstance(key, tuple) and key and isinstance(key[0], str):
        return (rename.get(key[0], key[0]), *key[1:])
    if isinstance(key, str):
        return rename.get(key, key)
    raise TypeError(f"key must be a str or a tuple that starts with one, not {key!r}")


def clone_key(key: Any, seed: Any) -> Any:
    """A new key for the same task, fixed by `seed`.

    Examples
    --------
    >>> clone_key("x", 123) == clone_key("x", 123), clone_key("inc-1", 1)[:4]
    (True, 'inc-')
    """
    if isinstance(key, tuple) and key and isinstance(key[0], str):
        return (clone_key(key[0], seed), *key[1:])
    if isinstance(key, str):
        from rasker.utils import key_split

        return f"{key_split(key)}-{tokenize(key, seed)}"
    raise TypeError(f"key must be a str or a tuple that starts with one, not {key!r}")
