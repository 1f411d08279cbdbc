"""From any graph to the list of calls that the engine takes.

A *call* is ``(key, func, args, kwargs)``; references to other values stand among its arguments as
objects of a class that the caller names (`rasker.task_spec.TaskRef` for the scheduler in this
thread, the extension module's ``Ref`` for the engine).  Graphs may hold task tuples, task objects
of ours, task objects of Dask (known by their behaviour, never imported), futures and plain values,
in any mixture.  Nothing here recurses along a graph, so its depth does not matter.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Call = tuple[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any] | None]

from rasker.task_spec import Alias, DataNode, GraphNode, Task, TaskRef, convert_legacy_task


def identity(x: Any) -> Any:
    """What stands for a value, or a second name, among calls."""
    return x


def run_node(node: Callable[[Any], Any], values: dict[Any, Any]) -> Any:
    """Call a task object with the values of its dependencies."""
    return node(values)


class _NeedsNode(Exception):
    """The arguments hold a call inside a call, which only a task object can hold."""


# How a class of values in a graph is read; classes are looked at once each.
_PLAIN, _TASK, _ALIAS, _DATA, _NODE = range(5)
_kinds: dict[type, int] = {Task: _TASK, Alias: _ALIAS, DataNode: _DATA, TaskRef: _PLAIN}
# References as other packages write them: class to True.
_refs: dict[type, bool] = {TaskRef: True}


def _kind(value: Any) -> int:
    cls = type(value)
    found = _kinds.get(cls)
    if found is None:
        found = _PLAIN
        if isinstance(value, GraphNode):
            found = _NODE
        elif not isinstance(value, type) and callable(value) and hasattr(cls, "dependencies"):
            names = {"Task": _TASK, "Alias": _ALIAS, "DataNode": _DATA}
            is_dask = cls.__module__ in ("dask._task_spec", "dask.task_spec")
            found = names.get(cls.__name__, _NODE) if is_dask else _NODE
        _kinds[cls] = found
    return found


def _is_ref(value: Any) -> bool:
    cls = type(value)
    found = _refs.get(cls)
    if found is None:
        found = cls.__name__ == "TaskRef" and cls.__module__.partition(".")[0] == "dask"
        _refs[cls] = found
    return found


_ATOMS = frozenset((type(None), bool, complex, slice, type(Ellipsis)))
_MAYBE_KEYS = frozenset((str, int, float, bytes, tuple))


def _legacy_argument(a: Any, keys: Mapping[Any, Any], ref: type) -> Any:
    """An argument of a task tuple, with references in place of keys."""
    kind = type(a)
    if kind in _ATOMS:
        return a
    if kind in _MAYBE_KEYS:
        if kind is tuple and a and callable(a[0]):
            raise _NeedsNode
        try:
            return ref(a) if a in keys else a
        except TypeError:
            return a
    if kind is list:
        new = [_legacy_argument(x, keys, ref) for x in a]
        return a if all(map(_same, a, new)) else new
    if kind is dict:
        return {k: _legacy_argument(v, keys, ref) for k, v in a.items()}
    if _is_ref(a):
        return ref(a.key)
    if _kind(a) != _PLAIN:
        raise _NeedsNode
    return a


def _same(a: object, b: object) -> bool:
    return a is b


def _object_argument(a: Any, ref: type) -> Any:
    """An argument of a task object, with our references in place of its own."""
    kind = type(a)
    if kind in _ATOMS or kind in (str, int, float, bytes):
        return a
    if _is_ref(a):
        return ref(a.key)
    if kind in (list, tuple, set, frozenset):
        new = [_object_argument(x, ref) for x in a]
        return a if all(map(_same, a, new)) else kind(new)
    if kind is dict:
        return {k: _object_argument(v, ref) for k, v in a.items()}
    if _kind(a) != _PLAIN:
        raise _NeedsNode
    return a


def node_call(key: Any, node: Any, ref: type) -> Call:
    """The call that runs a task object whole."""
    return (key, run_node, (node, {d: ref(d) for d in node.dependencies}), None)


def lower_value(key: Any, value: Any, keys: Mapping[Any, Any], ref: type) -> Call | None:
    """The call for one entry of a graph; None for a name that stands for itself."""
    if type(value) is tuple and value and callable(value[0]):
        try:
            args = tuple([_legacy_argument(a, keys, ref) for a in value[1:]])
        except _NeedsNode:
            return node_call(key, convert_legacy_task(key, value, keys), ref)
        return (key, value[0], args, None)
    kind = _kind(value)
    if kind == _TASK:
        try:
            args = tuple([_object_argument(a, ref) for a in value.args])
            kwargs = value.kwargs
            if kwargs:
                kwargs = {k: _object_argument(v, ref) for k, v in kwargs.items()}
        except _NeedsNode:
            return node_call(key, value, ref)
        return (key, value.func, args, kwargs or None)
    if kind == _ALIAS:
        target = value.target.key if _is_ref(value.target) else value.target
        return None if target == key else (key, identity, (ref(target),), None)
    if kind == _DATA:
        return (key, identity, (value.value,), None)
    if kind == _NODE:
        return node_call(key, value, ref)
    try:
        return (key, identity, (_legacy_argument(value, keys, ref),), None)
    except _NeedsNode:
        found = convert_legacy_task(None, value, keys)
        return node_call(key, Task(key, identity, found), ref)


def lower_graph(dsk: Mapping[Any, Any], ref: type) -> list[Call]:
    """The calls of a whole graph, in the order of the graph.

    Parameters
    ----------
    dsk : mapping
        Keys to task tuples, task objects, futures and values.
    ref : type
        Called with a key to make a reference.
    """
    calls = []
    for key, value in dsk.items():
        call = lower_value(key, value, dsk, ref)
        if call is not None:
            calls.append(call)
    return calls


def references(call: Call, ref: type) -> list[Any]:
    """The keys that a call needs directly, in order and with repetitions."""
    found: list[Any] = []
    stack: list[Any] = [call[2], call[3]] if call[3] else [call[2]]
    while stack:
        a = stack.pop()
        kind = type(a)
        if kind is ref:
            found.append(a.key)
        elif kind is tuple or kind is list or kind is set or kind is frozenset:
            stack.extend(a)
        elif kind is dict:
            stack.extend(a.values())
    return found


def layer_annotations(dsk: Any) -> dict[Any, dict[str, Any]]:
    """What `annotate` has said of each key of a layered graph."""
    result: dict[Any, dict[str, Any]] = {}
    layers = getattr(dsk, "layers", None)
    for layer in (layers or {}).values():
        annotations = getattr(layer, "annotations", None)
        if annotations:
            for key in _layer_keys(layer):
                result[key] = {
                    name: value(key) if callable(value) else value
                    for name, value in annotations.items()
                }
    return result


def _layer_keys(layer: Any) -> Iterable[Any]:
    return list(layer)
