"""Tasks as objects: a function, its arguments, and references to the values of other tasks.

A task object is called with a mapping from its dependencies to their values.

Examples
--------
>>> from operator import add
>>> t = Task("z", add, TaskRef("x"), 2)
>>> sorted(t.dependencies), t({"x": 1})
(['x'], 3)
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

__all__ = [
    "Alias",
    "DataNode",
    "Dict",
    "GraphNode",
    "List",
    "Set",
    "Task",
    "TaskRef",
    "Tuple",
    "convert_legacy_graph",
    "convert_legacy_task",
    "execute_graph",
]


class TaskRef:
    """Stands for the value of the task named `key`, among the arguments of another.

    Parameters
    ----------
    key : key
    """

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __repr__(self) -> str:
        return f"TaskRef({self.key!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is TaskRef and other.key == self.key

    def __hash__(self) -> int:
        return hash((TaskRef, self.key))

    def __reduce__(self) -> tuple[Any, ...]:
        return (TaskRef, (self.key,))

    def substitute(self, subs: Mapping[Any, Any], key: Any = None) -> TaskRef | GraphNode:
        """The reference with its key renamed as `subs` says."""
        new = subs.get(self.key, self.key)
        return new if isinstance(new, (GraphNode, TaskRef)) else TaskRef(new)


def _find(args: Any, found: set[Any]) -> None:
    for a in args:
        kind = type(a)
        if kind is TaskRef:
            found.add(a.key)
        elif isinstance(a, GraphNode):
            found |= a.dependencies
        elif kind in (list, tuple, set, frozenset):
            _find(a, found)
        elif kind is dict:
            _find(a.values(), found)


def _fill(a: Any, values: Mapping[Any, Any]) -> Any:
    kind = type(a)
    if kind is TaskRef:
        return values[a.key]
    if isinstance(a, GraphNode):
        return a(values)
    if kind in (list, tuple, set, frozenset):
        return kind([_fill(x, values) for x in a])
    if kind is dict:
        return {k: _fill(v, values) for k, v in a.items()}
    return a


def _substitute(a: Any, subs: Mapping[Any, Any]) -> Any:
    kind = type(a)
    if kind is TaskRef or isinstance(a, GraphNode):
        return a.substitute(subs)
    if kind in (list, tuple, set, frozenset):
        return kind([_substitute(x, subs) for x in a])
    if kind is dict:
        return {k: _substitute(v, subs) for k, v in a.items()}
    return a


class GraphNode:
    """What the classes of this module share."""

    __slots__ = ("key", "_dependencies")

    key: Any
    _dependencies: frozenset[Any]

    @property
    def dependencies(self) -> frozenset[Any]:
        """The keys whose values the call needs."""
        return self._dependencies

    def ref(self) -> TaskRef:
        """A reference to this task."""
        return TaskRef(self.key)

    @property
    def is_coro(self) -> bool:
        """True if the function is a coroutine function."""
        return False

    def __call__(self, values: Mapping[Any, Any] = {}) -> Any:  # noqa: B006 - never changed
        raise NotImplementedError

    def copy(self) -> Any:
        """A copy that shares the arguments."""
        return self.substitute({})

    def substitute(self, subs: Mapping[Any, Any], key: Any = None) -> Any:
        """The same with dependencies renamed as `subs` says, under `key` if given."""
        raise NotImplementedError

    def _state(self) -> tuple[Any, ...]:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._state() == self._state()

    def __hash__(self) -> int:
        return hash((type(self), self.key))

    def __dask_tokenize__(self) -> Any:
        return self._state()


class Task(GraphNode):
    """A call.

    Parameters
    ----------
    key : key
        The name of the result.
    func : callable
    *args, **kwargs
        Its arguments; `TaskRef`, also nested in lists, tuples, sets and dicts, and task objects
        stand for values.
    """

    __slots__ = ("func", "args", "kwargs")

    def __init__(self, key: Any, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("_data_producer", None)
        self.key = key
        self.func = func
        self.args = args
        self.kwargs = kwargs
        found: set[Any] = set()
        _find(args, found)
        if kwargs:
            _find(kwargs.values(), found)
        self._dependencies = frozenset(found)

    def __call__(self, values: Mapping[Any, Any] = {}) -> Any:  # noqa: B006 - never changed
        args = [_fill(a, values) for a in self.args]
        if self.kwargs:
            return self.func(*args, **{k: _fill(v, values) for k, v in self.kwargs.items()})
        return self.func(*args)

    @property
    def is_coro(self) -> bool:
        import inspect

        return inspect.iscoroutinefunction(self.func)

    def substitute(self, subs: Mapping[Any, Any], key: Any = None) -> Task:
        return Task(
            self.key if key is None else key,
            self.func,
            *[_substitute(a, subs) for a in self.args],
            **{k: _substitute(v, subs) for k, v in self.kwargs.items()},
        )

    def _state(self) -> tuple[Any, ...]:
        return (self.key, self.func, self.args, self.kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_make_task, (self.key, self.func, self.args, self.kwargs))

    def __repr__(self) -> str:
        from rasker.utils import funcname

        shown = [repr(a) for a in self.args] + [f"{k}={v!r}" for k, v in self.kwargs.items()]
        return f"<Task {self.key!r} {funcname(self.func)}({', '.join(shown)})>"


def _make_task(key: Any, func: Any, args: Any, kwargs: Any) -> Task:
    return Task(key, func, *args, **kwargs)


class Alias(GraphNode):
    """A second name for a task.

    Parameters
    ----------
    key : key
    target : key or TaskRef, optional
        Default: `key` itself.
    """

    __slots__ = ("target",)

    def __init__(self, key: Any, target: Any = None) -> None:
        self.key = key.key if isinstance(key, TaskRef) else key
        target = self.key if target is None else target
        self.target = target if isinstance(target, TaskRef) else TaskRef(target)
        self._dependencies = frozenset((self.target.key,))

    def __call__(self, values: Mapping[Any, Any] = {}) -> Any:  # noqa: B006 - never changed
        return values[self.target.key]

    def substitute(self, subs: Mapping[Any, Any], key: Any = None) -> GraphNode:
        new = self.target.substitute(subs)
        own = self.key if key is None else key
        return new.substitute({}, key=own) if isinstance(new, GraphNode) else Alias(own, new)

    def _state(self) -> tuple[Any, ...]:
        return (self.key, self.target.key)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Alias, (self.key, self.target.key))

    def __repr__(self) -> str:
        return f"Alias({self.key!r}->{self.target.key!r})"


class DataNode(GraphNode):
    """A value that is there already.

    Parameters
    ----------
    key : key
    value : object
    """

    __slots__ = ("value",)

    def __init__(self, key: Any, value: Any) -> None:
        self.key = key
        self.value = value
        self._dependencies = frozenset()

    @property
    def typ(self) -> type:
        """The type of the value."""
        return type(self.value)

    def __call__(self, values: Mapping[Any, Any] = {}) -> Any:  # noqa: B006 - never changed
        return self.value

    def substitute(self, subs: Mapping[Any, Any], key: Any = None) -> DataNode:
        return DataNode(self.key if key is None else key, self.value)

    def _state(self) -> tuple[Any, ...]:
        return (self.key, self.value)

    def __reduce__(self) -> tuple[Any, ...]:
        return (DataNode, (self.key, self.value))

    def __repr__(self) -> str:
        return f"DataNode({self.key!r}, {self.value!r})"


class _Container(Task):
    """A container of values and references that is built when its parts are known."""

    __slots__ = ()
    klass: type = list

    def __init__(self, *args: Any) -> None:
        if len(args) == 1 and type(args[0]) is self.klass:
            args = tuple(args[0])  # type: ignore[arg-type]
        super().__init__(None, self.klass, *args)

    def __call__(self, values: Mapping[Any, Any] = {}) -> Any:  # noqa: B006 - never changed
        return self.klass([_fill(a, values) for a in self.args])

    def substitute(self, subs: Mapping[Any, Any], key: Any = None) -> Any:
        return type(self)(*[_substitute(a, subs) for a in self.args])

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), self.args)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.args))})"


class List(_Container):
    """A list of values and references."""

    __slots__ = ()


class Tuple(_Container):
    """A tuple of values and references."""

    __slots__ = ()
    klass = tuple


class Set(_Container):
    """A set of values and references."""

    __slots__ = ()
    klass = set


class Dict(_Container):
    """A dict whose values (and keys) may be references."""

    __slots__ = ()
    klass = dict

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pairs = tuple(dict(*args, **kwargs).items())
        Task.__init__(self, None, dict, *pairs)

    def __call__(self, values: Mapping[Any, Any] = {}) -> Any:  # noqa: B006 - never changed
        return {_fill(k, values): _fill(v, values) for k, v in self.args}

    def substitute(self, subs: Mapping[Any, Any], key: Any = None) -> Any:
        return Dict([(_substitute(k, subs), _substitute(v, subs)) for k, v in self.args])

    def __reduce__(self) -> tuple[Any, ...]:
        return (Dict, (self.args,))


def convert_legacy_task(key: Any, task: Any, all_keys: Any) -> Any:
    """A task tuple as a task object; what is no task comes back as it is, keys as references."""
    from rasker.core import istask

    if isinstance(task, (GraphNode, TaskRef)):
        return task
    if istask(task):
        func, *args = task
        return Task(key, func, *[convert_legacy_task(None, a, all_keys) for a in args])
    try:
        if task in all_keys:
            return Alias(key, task) if key is not None else TaskRef(task)
    except TypeError:
        pass  # not hashable, so no key
    if type(task) is list:
        return [convert_legacy_task(None, a, all_keys) for a in task]
    if type(task) is dict:
        return {k: convert_legacy_task(None, v, all_keys) for k, v in task.items()}
    return task


def convert_legacy_graph(dsk: Mapping[Any, Any], all_keys: Any = None) -> dict[Any, GraphNode]:
    """A graph of task objects from a graph of task tuples and values."""
    keys = set(dsk) if all_keys is None else all_keys
    result: dict[Any, GraphNode] = {}
    for key, value in dsk.items():
        node = convert_legacy_task(key, value, keys)
        if not isinstance(node, GraphNode):
            found: set[Any] = set()
            _find([node], found)
            node = Task(key, _identity, node) if found else DataNode(key, node)
        result[key] = node
    return result


def _identity(x: Any) -> Any:
    return x


def execute_graph(
    dsk: Any, cache: dict[Any, Any] | None = None, keys: Any = None
) -> dict[Any, Any]:
    """Run all tasks of a graph in this thread.

    Parameters
    ----------
    dsk : mapping of key to task object, or iterable of task objects
    cache : dict, optional
        Values that are there already; filled and returned.
    keys : container of keys, optional
        What to keep in the result; default all.
    """
    from rasker.core import toposort

    nodes = dict(dsk) if hasattr(dsk, "items") else {n.key: n for n in dsk}
    cache = {} if cache is None else cache
    for key in toposort(nodes, {k: n.dependencies for k, n in nodes.items()}):
        if key not in cache:
            cache[key] = nodes[key](cache)
    if keys is not None:
        for key in [k for k in cache if k not in keys]:
            del cache[key]
    return cache
