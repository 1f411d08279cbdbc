"""The part of `Client` that runs collections and graphs."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

from rasker.annotations import make_options, options_by_key
from rasker.distributed.not_built import not_built

_OPTIONS = ("workers", "allow_other_workers", "resources", "retries", "priority", "pure")


def _finish(finalize: Callable[..., Any], parts: Any, extra: tuple[Any, ...]) -> Any:
    """Put the parts of a collection together, on the cluster."""
    return finalize(parts, *extra)


def _with_refs(keys: Any, ref: type) -> Any:
    if isinstance(keys, list):
        return [_with_refs(k, ref) for k in keys]
    return ref(keys)


class ClientCollections:
    """Methods of `Client` for collections and graphs."""

    if TYPE_CHECKING:
        _session: Any
        _do: Callable[..., Any]
        _gather: Callable[..., Any]

    def _run_graph(
        self, calls: Any, outputs: Any, annotations: Any, given: Any, fuse: bool = True
    ) -> list[Any]:
        options = make_options(**given)
        notes = options_by_key(annotations, **given)
        made: list[Any] = self._session.graph(calls, outputs, options, notes, fuse)
        return made

    def _run_lowered(
        self, lower: Callable[[type], Any], keys: list[Any], **kwargs: Any
    ) -> list[Any]:
        """The way of `rasker.compute` into this client: calls in, values out."""
        from rasker._native import Ref

        calls, annotations = lower(Ref)
        given = {k: v for k, v in kwargs.items() if k in _OPTIONS and v is not None}
        handles = self._run_graph(calls, keys, annotations, given, getattr(lower, "fuse", True))
        return self._session.values(handles, False, None)  # type: ignore[no-any-return]

    def compute(
        self,
        collections: Any,
        sync: bool = False,
        optimize_graph: bool = True,
        workers: Any = None,
        allow_other_workers: bool = False,
        resources: Any = None,
        retries: int = 0,
        priority: float = 0,
        fifo_timeout: Any = "60s",
        actors: Any = None,
        traverse: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Compute collections on the cluster.

        Parameters
        ----------
        collections : collection, or list, tuple or set of collections
            Other objects come back as they are.
        sync : bool, default False
            Wait and return values instead of futures.
        optimize_graph : bool, default True
            Let each kind of collection rewrite its graph first.
        workers, allow_other_workers, resources, retries, priority
            As for `submit`.
        fifo_timeout : str, optional
            Has no meaning here.
        actors : bool, optional
            Not built yet.
        traverse : bool, default True
            Look into containers among `collections`.

        Returns
        -------
        Future or list of Future
            One per collection; values if `sync`.

        Examples
        --------
        >>> client.compute(rasker.delayed(abs)(-1)).result()  # doctest: +SKIP
        1
        """
        from rasker._native import Ref
        from rasker.base import Lowering
        from rasker.traversal import is_dask_collection

        if actors:
            not_built("compute(…, actors=True)", "keep state in the values that tasks return")
        many = isinstance(collections, (list, tuple, set, frozenset))
        items = list(collections) if many else [collections]
        if traverse:
            from rasker.delayed import delayed

            items = [
                delayed(x) if isinstance(x, (list, tuple, dict, set)) and _holds_any(x) else x
                for x in items
            ]
        wanted = [x for x in items if is_dask_collection(x)]
        lower = Lowering(wanted, optimize_graph)
        calls, annotations = lower(Ref)
        outputs = [self._add_finish(c, calls, Ref) for c in wanted]
        given = {
            "workers": workers,
            "allow_other_workers": allow_other_workers,
            "resources": resources,
            "retries": retries,
            "priority": priority,
        }
        futures = []
        if wanted:
            futures = self._run_graph(calls, outputs, annotations, given, lower.fuse)
        left = iter(futures)
        result = [next(left) if is_dask_collection(x) else x for x in items]
        if sync:
            return self._do(self._gather, result if many else result[0], False)
        return result if many else result[0]

    def _add_finish(self, collection: Any, calls: list[Any], ref: type) -> Any:
        """The key of a collection's final value; adds the call that makes it."""
        from rasker.delayed import single_key
        from rasker.tokenize import tokenize

        keys = collection.__dask_keys__()
        finalize, extra = collection.__dask_postcompute__()
        if finalize is single_key or (
            getattr(finalize, "__name__", "") == "single_key" and not extra
        ):
            return keys[0]
        key = f"finalize-{tokenize(collection, keys)}"
        calls.append((key, _finish, (finalize, _with_refs(keys, ref), tuple(extra)), None))
        return key

    def persist(
        self,
        collections: Any,
        optimize_graph: bool = True,
        workers: Any = None,
        allow_other_workers: bool | None = None,
        resources: Any = None,
        retries: int | None = None,
        priority: float = 0,
        fifo_timeout: Any = "60s",
        actors: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Start computing collections and keep them collections.

        Parameters
        ----------
        collections : collection, or list, tuple or set of collections
        optimize_graph, workers, allow_other_workers, resources, retries, priority
            As for `compute`.

        Returns
        -------
        collection or list of collection
            At once; their graphs hold futures.

        Examples
        --------
        >>> x = client.persist(rasker.delayed(abs)(-1))  # doctest: +SKIP
        """
        from rasker._native import Ref
        from rasker.base import Lowering, _flat_keys, _rebuild

        if actors:
            not_built("persist(…, actors=True)", "keep state in the values that tasks return")
        many = isinstance(collections, (list, tuple, set, frozenset))
        items = list(collections) if many else [collections]
        lower = Lowering(items, optimize_graph)
        calls, annotations = lower(Ref)
        outputs = list(dict.fromkeys([k for c in items for k in _flat_keys(c)]))
        given = {
            "workers": workers,
            "allow_other_workers": allow_other_workers,
            "resources": resources,
            "retries": retries,
            "priority": priority,
        }
        futures = self._run_graph(calls, outputs, annotations, given, lower.fuse)
        by_key = dict(zip(outputs, futures, strict=True))
        result = [_rebuild(c, {k: by_key[k] for k in _flat_keys(c)}) for c in items]
        return result if many else result[0]

    def get(
        self,
        dsk: Any,
        keys: Any,
        workers: Any = None,
        allow_other_workers: bool | None = None,
        resources: Any = None,
        sync: bool = True,
        asynchronous: Any = None,
        direct: Any = None,
        retries: int | None = None,
        priority: float = 0,
        fifo_timeout: Any = "60s",
        actors: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Run a graph.

        Parameters
        ----------
        dsk : mapping
            Keys to tasks and values.
        keys : key or nested list of keys
        sync : bool, default True
            Wait and return values; False returns futures.
        workers, allow_other_workers, resources, retries, priority
            As for `submit`.

        Returns
        -------
        object
            In the nesting of `keys`.

        Raises
        ------
        ValueError
            When called, if the graph has a cycle; the message names one.
        KeyError
            When called, if a key is not in the graph.

        Examples
        --------
        >>> client.get({"x": (abs, -1)}, "x")  # doctest: +SKIP
        1
        """
        from rasker._native import Ref
        from rasker.core import flatten
        from rasker.local import as_mapping
        from rasker.lowering import layer_annotations, lower_graph

        if actors:
            not_built("get(…, actors=True)", "keep state in the values that tasks return")
        graph = as_mapping(dsk)
        flat = list(dict.fromkeys(flatten(keys))) if isinstance(keys, list) else [keys]
        given = {
            "workers": workers,
            "allow_other_workers": allow_other_workers,
            "resources": resources,
            "retries": retries,
            "priority": priority,
        }
        calls = lower_graph(graph, Ref)
        futures = self._run_graph(calls, flat, layer_annotations(dsk), given)
        nested = _nested(keys, dict(zip(flat, futures, strict=True)))
        if not sync:
            return nested
        return self._do(self._gather, nested, False, asynchronous=asynchronous)

    def normalize_collection(self, collection: Any) -> Any:
        """The collection itself: tasks that are on the cluster already are known by their keys."""
        return collection


def _nested(keys: Any, values: Any) -> Any:
    return [_nested(k, values) for k in keys] if isinstance(keys, list) else values[keys]


def _holds_any(x: Any) -> bool:
    from rasker.traversal import unpack_collections

    return bool(unpack_collections(x)[0])
