"""Rewriting graphs of task tuples: leave out, join, put in line.

The engine culls and fuses by itself; these functions are for graphs that go elsewhere.

Examples
--------
>>> dsk, deps = cull({"x": 1, "y": (abs, "x"), "z": (abs, "x")}, "y")
>>> sorted(dsk)
['x', 'y']
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

from rasker.core import flatten, get_dependencies, istask, keys_in_tasks, subs, toposort
from rasker.task_spec import GraphNode

__all__ = ["cull", "functions_of", "fuse", "fuse_linear", "inline", "inline_functions"]


def _key_set(keys: Any) -> set[Any]:
    return set(flatten(keys)) if isinstance(keys, (list, set)) else {keys}


def cull(dsk: Mapping[Any, Any], keys: Any) -> tuple[dict[Any, Any], dict[Any, list[Any]]]:
    """The part of a graph that some keys need.

    Parameters
    ----------
    dsk : mapping
    keys : key or nested list of keys

    Returns
    -------
    dsk : dict
    dependencies : dict of key to list of key
    """
    kept: dict[Any, Any] = {}
    dependencies: dict[Any, list[Any]] = {}
    stack = list(_key_set(keys))
    while stack:
        key = stack.pop()
        if key in kept:
            continue
        kept[key] = dsk[key]
        found = keys_in_tasks(dsk, [dsk[key]], as_list=True)
        dependencies[key] = list(dict.fromkeys(found))
        stack.extend(dependencies[key])
    return kept, dependencies


def _dependencies(dsk: Mapping[Any, Any]) -> dict[Any, list[Any]]:
    return {k: list(get_dependencies(dsk, task=v, as_list=True)) for k, v in dsk.items()}


def fuse_linear(
    dsk: Mapping[Any, Any],
    keys: Any = None,
    dependencies: Mapping[Any, Iterable[Any]] | None = None,
    rename_keys: bool | Callable[[list[Any]], Any] = True,
) -> tuple[dict[Any, Any], dict[Any, set[Any]]]:
    """Join each chain of tasks into one task.

    Parameters
    ----------
    dsk : mapping
    keys : key or list of keys, optional
        Never joined into others.
    dependencies : mapping of key to keys, optional
    rename_keys : bool or callable, default True
        Has no meaning here: a joined task has the key of its last, so that the key stays known.

    Returns
    -------
    dsk : dict
    dependencies : dict of key to set of key

    Examples
    --------
    >>> fuse_linear({"a": 1, "b": (abs, "a"), "c": (abs, "b")}, "c")[0] == {"c": (abs, (abs, 1))}
    True
    """
    kept_keys = _key_set(keys) if keys is not None else set()
    deps = {k: list(v) for k, v in (dependencies or _dependencies(dsk)).items()}
    users: dict[Any, list[Any]] = {}
    for k, ds in deps.items():
        for d in dict.fromkeys(ds):
            users.setdefault(d, []).append(k)
    result: dict[Any, Any] = {}
    done: dict[Any, set[Any]] = {}
    for key in toposort(dsk, deps):
        value = dsk[key]
        needed = set(deps[key])
        if len(needed) == 1:
            (only,) = needed
            may = only in result and users[only] == [key] and only not in kept_keys
            if may and not isinstance(value, GraphNode) and not isinstance(result[only], GraphNode):
                value = subs(value, only, result.pop(only)) if value != only else result.pop(only)
                needed = done.pop(only)
        result[key] = value
        done[key] = needed
    return result, done


def fuse(
    dsk: Mapping[Any, Any],
    keys: Any = None,
    dependencies: Mapping[Any, Iterable[Any]] | None = None,
    *args: Any,
    **kwargs: Any,
) -> tuple[dict[Any, Any], dict[Any, set[Any]]]:
    """Join chains of tasks; see `fuse_linear`.

    Parameters
    ----------
    dsk, keys, dependencies
        As for `fuse_linear`.
    *args, **kwargs
        Dask's limits for joining what is no chain, which is not done here.
    """
    return fuse_linear(dsk, keys, dependencies)


def inline(
    dsk: Mapping[Any, Any],
    keys: Any = None,
    inline_constants: bool = True,
    dependencies: Mapping[Any, Iterable[Any]] | None = None,
) -> dict[Any, Any]:
    """Put tasks, and constants, in place of their keys.

    Parameters
    ----------
    dsk : mapping
    keys : key or list of keys, optional
        What to put in line.
    inline_constants : bool, default True
        Values that are no tasks as well.
    dependencies : mapping of key to keys, optional

    Examples
    --------
    >>> inline({"x": 1, "y": (abs, "x")})["y"] == (abs, 1)
    True
    """
    chosen = _key_set(keys) if keys is not None else set()
    deps = {k: set(v) for k, v in (dependencies or _dependencies(dsk)).items()}
    if inline_constants:
        chosen |= {
            k
            for k, v in dsk.items()
            if not deps[k] and not istask(v) and not isinstance(v, GraphNode)
        }
    result: dict[Any, Any] = {}
    for key in toposort(dsk, deps):
        value = dsk[key]
        for d in deps[key] & chosen:
            if not isinstance(value, GraphNode):
                value = subs(value, d, result[d])
        result[key] = value
    return result


def inline_functions(
    dsk: Mapping[Any, Any],
    output: Any,
    fast_functions: Iterable[Any] | None = None,
    inline_constants: bool = False,
    dependencies: Mapping[Any, Iterable[Any]] | None = None,
) -> dict[Any, Any]:
    """Put tasks that only call cheap functions in place of their keys.

    Parameters
    ----------
    dsk : mapping
    output : key or list of keys
        Never put in line.
    fast_functions : iterable of callable
    inline_constants : bool, default False
    dependencies : mapping of key to keys, optional

    Examples
    --------
    >>> dsk = {"x": (abs, 1), "y": (sum, ["x"])}
    >>> sorted(inline_functions(dsk, "y", [abs]))
    ['y']
    """
    if not fast_functions:
        return dict(dsk)
    fast = set(fast_functions)
    wanted = _key_set(output)
    deps = {k: set(v) for k, v in (dependencies or _dependencies(dsk)).items()}
    used = {d for ds in deps.values() for d in ds}
    chosen = {
        k
        for k, v in dsk.items()
        if istask(v) and k in used and k not in wanted and functions_of(v) <= fast
    }
    result = inline(dsk, list(chosen), inline_constants, deps)
    for k in chosen:
        del result[k]
    return result


def functions_of(task: Any) -> set[Any]:
    """The functions that a task calls, also in tasks inside it.

    Examples
    --------
    >>> functions_of((sum, [(abs, 1)])) == {sum, abs}
    True
    """
    found: set[Any] = set()
    stack = [task]
    while stack:
        item = stack.pop()
        if istask(item):
            func = item[0]
            while hasattr(func, "func") and not isinstance(func, type):
                func = func.func
            found.add(func)
            stack.extend(item[1:])
        elif type(item) is list:
            stack.extend(item)
    return found
