"""A static order of tasks that keeps few values alive.

The walk is depth first from the results: a task runs as soon as what it needs is there, and of the
things that it needs the one that costs most memory comes first.  What a subtree costs is the count
of values alive at its worst moment, as Sethi and Ullman count registers (*The generation of optimal
code for arithmetic expressions*, Journal of the ACM 17, 1970), which is exact for trees; on general
graphs it is a good guess.

Examples
--------
>>> order({"a": 1, "b": (abs, "a"), "c": (sum, ["b"])})
{'a': 0, 'b': 1, 'c': 2}
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

from rasker.core import _walk, cycle_message, get_dependencies

__all__ = ["ndependencies", "order"]


def ndependencies(
    dependencies: Mapping[Any, Iterable[Any]], dependents: Mapping[Any, Iterable[Any]]
) -> tuple[dict[Any, int], dict[Any, int]]:
    """How many dependencies each task has, and how many tasks lie below it, with itself.

    Shared tasks count once for each way to them.

    Parameters
    ----------
    dependencies, dependents : mapping of key to set of key
    """
    count = {k: len(list(v)) for k, v in dependencies.items()}
    total: dict[Any, int] = {}
    for k in _walk(dependencies, dependencies)[0]:
        total[k] = 1 + sum(total[d] for d in dependencies[k] if d in total)
    return count, total


def _needs(dependencies: Mapping[Any, list[Any]], topological: list[Any]) -> dict[Any, int]:
    """How many values are alive at the worst moment of making each value."""
    needs: dict[Any, int] = {}
    for key in topological:
        costs = sorted([needs[d] for d in dependencies[key]], reverse=True)
        # While the i-th input is made, i earlier ones are held.
        needs[key] = max([c + i for i, c in enumerate(costs)], default=1)
    return needs


def order(
    dsk: Mapping[Any, Any],
    dependencies: Mapping[Any, Iterable[Any]] | None = None,
    *,
    return_stats: bool = False,
) -> dict[Any, int]:
    """A number for each task: run the lowest that is ready.

    Parameters
    ----------
    dsk : mapping
        The graph.
    dependencies : mapping of key to set of key, optional
    return_stats : bool
        Not built.

    Returns
    -------
    dict of key to int
        0 to n - 1; each task comes after what it needs.

    Raises
    ------
    RuntimeError
        When called, if there is a cycle.

    Notes
    -----
    Cost: linear in tasks and dependencies, but for sorting the inputs of each task.
    """
    if return_stats:
        raise NotImplementedError("order(return_stats=True) is not built; leave it out")
    if dependencies is None:
        dependencies = {k: get_dependencies(dsk, task=v) for k, v in dsk.items()}
    # Sets have no order of their own; the graph's makes the result the same in every process.
    place = {k: i for i, k in enumerate(dsk)}
    inputs = {k: sorted([d for d in dependencies[k] if d in place], key=place.__getitem__)
              for k in dsk}  # fmt: skip
    topological, cycle = _walk(inputs, dsk)
    if cycle:
        raise RuntimeError(cycle_message(cycle))
    needs = _needs(inputs, topological)
    by_cost = {k: sorted(deps, key=needs.__getitem__, reverse=True) for k, deps in inputs.items()}
    needed = {d for deps in inputs.values() for d in deps}
    results = [k for k in dsk if k not in needed]
    walked, _ = _walk(by_cost, results)
    return {k: i for i, k in enumerate(walked)}
