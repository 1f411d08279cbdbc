"""Graphs as plain dicts: what a task is, what it depends on, and running one in this thread.

A graph maps keys to values.  A value is a *task* if it is a tuple whose first item is callable; the
other items are its arguments, in which keys stand for the values of their tasks, also inside lists.

Examples
--------
>>> from operator import add
>>> get({"x": 1, "y": (add, "x", 2)}, "y")
3
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Iterator, Mapping
    from typing import Any

from rasker.typing import no_default

__all__ = [
    "flatten",
    "get",
    "get_dependencies",
    "get_deps",
    "getcycle",
    "isdag",
    "ishashable",
    "iskey",
    "istask",
    "keys_in_tasks",
    "literal",
    "quote",
    "reshapelist",
    "reverse_dict",
    "subs",
    "toposort",
    "validate_key",
]


def ishashable(x: object) -> bool:
    """True if `x` has a hash.

    Examples
    --------
    >>> ishashable(1), ishashable([])
    (True, False)
    """
    try:
        hash(x)
    except TypeError:
        return False
    return True


def istask(x: object) -> bool:
    """True if `x` is a task: a tuple that starts with a callable.

    Examples
    --------
    >>> istask((len, [1])), istask(1)
    (True, False)
    """
    return type(x) is tuple and bool(x) and callable(x[0])


def iskey(key: object) -> bool:
    """True if `key` may name a task: str, bytes, int, float, or a tuple of such."""
    if isinstance(key, tuple):
        return type(key) is tuple and bool(key) and all(map(iskey, key))
    return isinstance(key, (str, bytes, int, float))


def validate_key(key: object) -> None:
    """Raise TypeError unless `iskey` is true."""
    if not iskey(key):
        raise TypeError(
            f"key {key!r} has type {type(key).__name__}; "
            "use str, bytes, int, float, or a tuple of such"
        )


def flatten(seq: Any, container: type | tuple[type, ...] = list) -> Iterator[Any]:
    """The items of a nested list, from left to right.

    Examples
    --------
    >>> list(flatten([[1, [2]], 3]))
    [1, 2, 3]
    """
    if isinstance(seq, str):
        yield seq
        return
    stack = [iter(seq)]
    while stack:
        for item in stack[-1]:
            if isinstance(item, container):
                stack.append(iter(item))  # type: ignore[call-overload]
                break
            yield item
        else:
            stack.pop()


class literal:  # noqa: N801 - Dask's public name
    """A value in a graph that is not looked into: ``(literal(x),)`` is a task that returns `x`."""

    __slots__ = ("data",)

    def __init__(self, data: Any) -> None:
        self.data = data

    def __repr__(self) -> str:
        return f"literal<type={type(self.data).__name__}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (literal, (self.data,))

    def __call__(self) -> Any:
        return self.data


def quote(x: Any) -> Any:
    """`x` as it may stand in a task so that it arrives unchanged.

    Examples
    --------
    >>> quote(1)
    1
    >>> quote((len, "abc"))
    (literal<type=tuple>,)
    """
    if istask(x) or type(x) in (list, dict, tuple, set):
        return (literal(x),)
    return x


def _is_node(x: object) -> bool:
    return callable(x) and hasattr(x, "dependencies")


def keys_in_tasks(
    keys: Container[Any], tasks: Iterable[Any], as_list: bool = False
) -> set[Any] | list[Any]:
    """The members of `keys` that occur in `tasks`.

    Parameters
    ----------
    keys : container of keys
    tasks : iterable
        Tasks, keys, or lists and dicts of them.
    as_list : bool, default False
        Return a list that keeps repetitions.
    """
    found: list[Any] = []
    stack = list(tasks)
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind is tuple and item and callable(item[0]):
            stack.extend(item[1:])
        elif kind is list:
            stack.extend(item)
        elif kind is dict:
            stack.extend(item.values())
        elif _is_node(item) and not isinstance(item, type):
            found.extend(d for d in item.dependencies if d in keys)
        else:
            try:
                if item in keys:
                    found.append(item)
            except TypeError:
                pass  # not hashable, so no key
    return found if as_list else set(found)


def get_dependencies(
    dsk: Mapping[Any, Any], key: Any = None, task: Any = no_default, as_list: bool = False
) -> set[Any] | list[Any]:
    """The keys that a task needs directly.

    Parameters
    ----------
    dsk : mapping
        The graph.
    key : key, optional
        The task by its name.
    task : task, optional
        Or the task itself.
    as_list : bool, default False
        Return a list that keeps repetitions.

    Examples
    --------
    >>> from operator import add
    >>> sorted(get_dependencies({"x": 1, "y": 2, "z": (add, "x", (add, "y", 1))}, "z"))
    ['x', 'y']
    """
    if key is not None:
        task = dsk[key]
    elif task is no_default:
        raise ValueError("get_dependencies needs a key or a task; give one of them")
    return keys_in_tasks(dsk, [task], as_list=as_list)


def get_deps(dsk: Mapping[Any, Any]) -> tuple[dict[Any, set[Any]], dict[Any, set[Any]]]:
    """Dependencies and dependents of every key."""
    dependencies = {k: set(get_dependencies(dsk, task=v)) for k, v in dsk.items()}
    return dependencies, reverse_dict(dependencies)


def reverse_dict(d: Mapping[Any, Iterable[Any]]) -> dict[Any, set[Any]]:
    """Turn the arrows of a mapping around.

    Examples
    --------
    >>> reverse_dict({"a": [1], "b": [1]})[1] == {"a", "b"}
    True
    """
    result: dict[Any, set[Any]] = {k: set() for k in d}
    for k, values in d.items():
        for v in values:
            result.setdefault(v, set()).add(k)
    return result


def subs(task: Any, key: Any, val: Any) -> Any:
    """`task` with each `key` in it replaced by `val`.

    Examples
    --------
    >>> subs((len, "x"), "x", "y") == (len, "y")
    True
    """
    if istask(task):
        return (task[0], *[subs(a, key, val) for a in task[1:]])
    if type(task) is list:
        return [subs(a, key, val) for a in task]
    if type(task) is type(key) and task == key:
        return val
    return task


def _walk(
    dependencies: Mapping[Any, Iterable[Any]], keys: Iterable[Any]
) -> tuple[list[Any], list[Any]]:
    """Keys so that each follows what it needs, and a cycle (empty if there is none)."""
    result: list[Any] = []
    done: set[Any] = set()
    open_: dict[Any, None] = {}
    for root in keys:
        if root in done:
            continue
        stack = [(root, iter(dependencies[root]))]
        open_[root] = None
        while stack:
            key, waiting = stack[-1]
            for dep in waiting:
                if dep in done or dep not in dependencies:
                    continue
                if dep in open_:
                    path = list(open_)
                    return result, [*path[path.index(dep) :], dep]
                open_[dep] = None
                stack.append((dep, iter(dependencies[dep])))
                break
            else:
                stack.pop()
                del open_[key]
                done.add(key)
                result.append(key)
    return result, []


def toposort(
    dsk: Mapping[Any, Any], dependencies: Mapping[Any, Iterable[Any]] | None = None
) -> list[Any]:
    """The keys of a graph, each after all that it needs.

    Raises
    ------
    RuntimeError
        When called, if there is a cycle; the message names one.
    """
    if dependencies is None:
        dependencies = {k: get_dependencies(dsk, task=v) for k, v in dsk.items()}
    result, cycle = _walk(dependencies, dsk)
    if cycle:
        raise RuntimeError(cycle_message(cycle))
    return result


def cycle_message(cycle: list[Any]) -> str:
    """What to say of a cycle."""
    shown = " -> ".join(map(repr, cycle[:12])) + (" -> …" if len(cycle) > 12 else "")
    return (
        f"graph has a cycle: {shown}; each task needs the next, so none can run: "
        "remove one of these dependencies"
    )


def getcycle(d: Mapping[Any, Any], keys: Any) -> list[Any]:
    """A cycle that can be reached from `keys`, as a list that begins and ends with one key.

    Examples
    --------
    >>> getcycle({"x": (len, "y"), "y": (len, "x")}, "x")
    ['x', 'y', 'x']
    """
    dependencies = {k: get_dependencies(d, task=v) for k, v in d.items()}
    return _walk(dependencies, keys if isinstance(keys, list) else [keys])[1]


def isdag(d: Mapping[Any, Any], keys: Any) -> bool:
    """True if no cycle can be reached from `keys`."""
    return not getcycle(d, keys)


def reshapelist(shape: tuple[int, ...], seq: Iterable[Any]) -> list[Any]:
    """Nest a flat sequence.

    Examples
    --------
    >>> reshapelist((2, 2), range(4))
    [[0, 1], [2, 3]]
    """
    items = list(seq)
    if len(shape) == 1:
        return items
    n = len(items) // shape[0]
    return [reshapelist(shape[1:], items[i * n : (i + 1) * n]) for i in range(shape[0])]


def get(dsk: Mapping[Any, Any], out: Any, cache: dict[Any, Any] | None = None) -> Any:
    """Run what `out` needs, in this thread, and return the values in the nesting of `out`.

    Parameters
    ----------
    dsk : mapping
        The graph.
    out : key or nested list of keys
    cache : dict, optional
        Values that are there already.
    """
    from rasker.local import get_sync

    if cache:
        dsk = {**dsk, **{k: (literal(v),) for k, v in cache.items()}}
    return get_sync(dsk, out)


def preorder_traversal(task: Any) -> Iterator[Any]:
    """The parts of a task, outer before inner."""
    stack = [task]
    while stack:
        item = stack.pop()
        if istask(item):
            yield item[0]
            stack.extend(reversed(item[1:]))
        elif type(item) is list:
            yield list
            stack.extend(reversed(item))
        else:
            yield item


def leaves(dependencies: Mapping[Any, Collection[Any]]) -> list[Any]:
    """The keys that nothing needs."""
    needed = {d for deps in dependencies.values() for d in deps}
    return [k for k in dependencies if k not in needed]


def is_callable_node(x: object) -> bool:
    """True for task objects: callable on a mapping of values, with `dependencies`."""
    return _is_node(x) and not isinstance(x, type)
