"""From the records of `Delayed` objects to calls for the engine, and to graphs for others."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

from rasker.core import literal
from rasker.delayed import _DELAYED, Delayed, Nested
from rasker.highlevelgraph import HighLevelGraph, MaterializedLayer
from rasker.lowering import layer_annotations, lower_graph, run_node
from rasker.task_spec import Alias, DataNode, GraphNode, TaskRef


def _nested(x: Any, ref: type, stack: list[Any]) -> Any:
    """The inside of a container, with references in place of lazy values."""
    cls = type(x)
    if cls in _DELAYED:
        stack.append(x)
        return ref(x._record[0])
    if cls is Nested:
        return _nested(x.value, ref, stack)
    if cls is dict:
        return {k: _nested(v, ref, stack) for k, v in x.items()}
    if cls in (list, tuple, set, frozenset):
        return cls([_nested(i, ref, stack) for i in x])
    return x


def lower(delayeds: Iterable[Delayed], ref: type) -> tuple[list[Any], dict[Any, dict[str, Any]]]:
    """The calls of all records that can be reached, each once.

    Parameters
    ----------
    delayeds : iterable of Delayed
    ref : type
        Called with a key to make a reference.

    Returns
    -------
    calls : list of call
    annotations : dict of key to dict
    """
    calls: list[Any] = []
    annotations: dict[Any, dict[str, Any]] = {}
    graphs: dict[int, Any] = {}
    seen: set[Any] = set()
    stack = list(delayeds)
    while stack:
        key, func, args, kwargs, _, notes = stack.pop()._record
        if key in seen:
            continue
        if func is None:
            graphs[id(args)] = args
            continue
        seen.add(key)
        lowered = []
        for a in args:
            cls = type(a)
            if cls in _DELAYED:
                lowered.append(ref(a._record[0]))
                stack.append(a)
            elif cls is Nested:
                lowered.append(_nested(a, ref, stack))
            else:
                lowered.append(a)
        if kwargs:
            kwargs = {k: _nested(v, ref, stack) if type(v) in _LAZY else v
                      for k, v in kwargs.items()}  # fmt: skip
        calls.append((key, func, tuple(lowered), kwargs))
        if notes:
            annotations[key] = {n: v(key) if callable(v) else v for n, v in notes.items()}
    for graph in graphs.values():
        for call in lower_graph(graph, ref):
            if call[0] not in seen:
                seen.add(call[0])
                calls.append(call)
        annotations.update(layer_annotations(graph))
    return calls, annotations


_LAZY = frozenset((*_DELAYED, Nested))


def _apply(func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)


def _tuple_of(x: Any, keys: Any) -> Any:
    """A call's argument, with `TaskRef`s, as it is written in a graph of task tuples."""
    cls = type(x)
    if cls is TaskRef:
        return x.key
    if cls is list:
        return [_tuple_of(i, keys) for i in x]
    if cls in (tuple, set, frozenset):
        return (cls, [_tuple_of(i, keys) for i in x])
    if cls is dict:
        return (dict, [[_quoted(k, keys), _tuple_of(v, keys)] for k, v in x.items()])
    return _quoted(x, keys)


def _quoted(x: Any, keys: Any) -> Any:
    """A plain value that may be mistaken for a key, a task or a container to look into."""
    if type(x) in (list, tuple, dict, set, frozenset) or isinstance(x, GraphNode):
        return (literal(x),)
    try:
        return (literal(x),) if x in keys else x
    except (TypeError, ValueError):
        return x


def _holds_ref(x: Any) -> bool:
    cls = type(x)
    if cls is TaskRef:
        return True
    if cls is dict:
        return any(map(_holds_ref, x.values()))
    return cls in (list, tuple, set, frozenset) and any(map(_holds_ref, x))


def _task_tuple(call: Any, keys: Any) -> Any:
    _, func, args, kwargs = call
    written = [_tuple_of(a, keys) if _holds_ref(a) else _quoted(a, keys) for a in args]
    if not kwargs:
        return (func, *written)
    named = [
        [k, _tuple_of(v, keys) if _holds_ref(v) else _quoted(v, keys)] for k, v in kwargs.items()
    ]
    return (_apply, func, written, (dict, named))


def _foreign_value(key: Any, value: Any) -> Any:
    """A value of a given graph, in words that every reader of graphs understands."""
    if isinstance(value, DataNode):
        return (literal(value.value),)
    if isinstance(value, Alias):
        return value.target.key
    if isinstance(value, GraphNode):
        needed = [[(literal(d),), d] for d in value.dependencies]
        return (run_node, (literal(value),), (dict, needed))
    return value


def portable(graph: Any) -> Any:
    """A graph without task objects of ours, which other packages would take for values."""
    if not hasattr(graph, "layers"):
        return {k: _foreign_value(k, v) for k, v in graph.items()}
    layers = {}
    for name, layer in graph.layers.items():
        if getattr(type(layer), "__module__", "").startswith("rasker") and any(
            isinstance(v, GraphNode) for v in layer.values()
        ):
            mapping = {k: _foreign_value(k, v) for k, v in layer.items()}
            layer = MaterializedLayer(mapping, layer.annotations)
        layers[name] = layer
    return HighLevelGraph(layers, graph.dependencies)


def layer_name(delayed: Delayed) -> str:
    """The name of the layer that holds a value's own task."""
    key = delayed._record[0]
    layers = getattr(delayed._record[2], "layers", None)
    if delayed._record[1] is None and layers:
        for name, layer in layers.items():
            if key in layer:
                return str(name)
    return str(key)


def export(delayed: Delayed) -> HighLevelGraph:
    """The graph of a `Delayed` as task tuples: a dict that Dask's schedulers run as well.

    Returns
    -------
    HighLevelGraph
        One layer, and one more for each combination of annotations.
    """
    key, func, graph, *_ = delayed._record
    if func is None and isinstance(graph, HighLevelGraph):
        return graph
    own: dict[Any, Any] = {}
    given: dict[Any, Any] = {}
    notes: dict[Any, dict[str, Any]] = {}
    stack = [delayed]
    records: dict[Any, Any] = {}
    while stack:
        k, f, args, kwargs, _, note = stack.pop()._record
        if k in records:
            continue
        if f is None:
            if k not in given:
                given.update({n: _foreign_value(n, v) for n, v in args.items()})
            notes.update(layer_annotations(args))
            continue
        named = {n: _nested(v, TaskRef, stack) for n, v in (kwargs or {}).items()}
        records[k] = (k, f, tuple([_nested(a, TaskRef, stack) for a in args]), named or None)
        if note:
            notes[k] = note
    keys = {*records, *given}
    for k, call in records.items():
        own[k] = _task_tuple(call, keys)
    return _layers(str(key), {**given, **own}, notes)


def _layers(name: str, dsk: dict[Any, Any], notes: Mapping[Any, dict[str, Any]]) -> HighLevelGraph:
    if not notes:
        return HighLevelGraph({name: MaterializedLayer(dsk)}, {name: set()})
    groups: dict[str, tuple[dict[str, Any], dict[Any, Any]]] = {}
    for k, v in dsk.items():
        note = notes.get(k, {})
        groups.setdefault(repr(sorted(note.items(), key=repr)), (note, {}))[1][k] = v
    layers: dict[str, Any] = {}
    first = next((g for g in groups.values() if any(str(k) == name for k in g[1])), None)
    for i, (note, part) in enumerate(groups.values()):
        label = name if first is not None and part is first[1] else f"{name}-{i}"
        layers[label] = MaterializedLayer(part, annotations=note or None)
    return HighLevelGraph(layers, {n: set(layers) - {n} for n in layers})
