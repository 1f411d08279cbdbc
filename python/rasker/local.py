"""Running a graph in this process: in this thread, or through any executor.

`get_sync` runs everything in the caller's thread, for debuggers.  `get_async` gives ready tasks to
an executor.  Both take the calls of `rasker.lowering` in an order that starts few things at a time,
and let a value go when its last dependent has run.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from rasker.lowering import Call

from rasker.core import _walk, cycle_message, flatten
from rasker.lowering import lower_graph, references
from rasker.task_spec import TaskRef

__all__ = ["CPU_COUNT", "get_async", "get_sync", "nested_get", "run_calls", "start_state"]


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


CPU_COUNT = _cpu_count()


def nested_get(ind: Any, coll: Any) -> Any:
    """The values of `coll` in the nesting of the keys `ind`; lists become tuples.

    Examples
    --------
    >>> nested_get([["a"], "b"], {"a": 1, "b": 2})
    ((1,), 2)
    """
    if isinstance(ind, list):
        return tuple([nested_get(i, coll) for i in ind])
    return coll[ind]


class Run:
    """One run of a list of calls: who needs whom, what is ready, what may be let go.

    Parameters
    ----------
    calls : list of call
    outputs : iterable of key
        The values that are kept.
    dsk : mapping, optional
        The graph that callbacks are shown.
    callbacks : list, optional
        Default: those active.
    """

    def __init__(
        self, calls: Iterable[Call], outputs: Iterable[Any], dsk: Any, callbacks: list[Any]
    ) -> None:
        from rasker.callbacks import unpack_callbacks

        hooks = unpack_callbacks(callbacks)
        self.starts, self.start_states, self.pretasks, self.posttasks, self.finishes = hooks
        self.outputs = set(outputs)
        by_key = {call[0]: call for call in calls}
        self.dsk = by_key if dsk is None else dsk
        for f in self.starts:
            f(self.dsk)
        dependencies = {}
        for key, call in by_key.items():
            deps = references(call, TaskRef)
            dependencies[key] = dict.fromkeys(deps) if len(deps) > 1 else deps
        for key in self.outputs:
            if key not in by_key:
                raise KeyError(f"key {key!r} not found in the graph")
        self.order, cycle = _walk(dependencies, self.outputs if len(by_key) > 1 else by_key)
        if cycle:
            raise RuntimeError(cycle_message(cycle))
        self.calls = by_key
        self.dependencies = dependencies
        self.values: dict[Any, Any] = {}
        # How many dependents a value still has, with one more for outputs.
        self.wanted = {k: int(k in self.outputs) for k in self.order}
        for key in self.order:
            for dep in dependencies[key]:
                if dep not in self.wanted:
                    raise KeyError(f"task {key!r} needs key {dep!r}, which is not in the graph")
                self.wanted[dep] += 1
        self.state = start_state(self) if callbacks else {}
        for f in self.start_states:
            f(self.dsk, self.state)

    def before(self, key: Any) -> None:
        """Tell that a task is about to run."""
        if self.state:
            self.state["ready"].discard(key)
            self.state["waiting"].pop(key, None)
            self.state["running"].add(key)
        for f in self.pretasks:
            f(key, self.dsk, self.state)

    def after(self, key: Any, value: Any, worker_id: Any) -> None:
        """Keep a value and let go of those that it was the last to need."""
        values = self.values
        values[key] = value
        if self.state:
            self.state["running"].discard(key)
            self.state["finished"].add(key)
        for f in self.posttasks:
            f(key, value, self.dsk, self.state, worker_id)
        for dep in self.dependencies[key]:
            left = self.wanted[dep] - 1
            self.wanted[dep] = left
            if not left:
                del values[dep]
                if self.state:
                    self.state["released"].add(dep)

    def finish(self, failed: bool) -> None:
        """Tell that the run has ended."""
        for f in self.finishes:
            f(self.dsk, self.state, failed)

    def arguments(self, key: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any] | None]:
        """A task's function and arguments, with values in place of references."""
        _, func, args, kwargs = self.calls[key]
        values = self.values
        args = tuple([_fill(a, values) for a in args])
        if kwargs:
            kwargs = {k: _fill(v, values) for k, v in kwargs.items()}
        return func, args, kwargs


def start_state(run: Run) -> dict[str, Any]:
    """What callbacks see of a run that is about to start."""
    deps = {k: set(run.dependencies[k]) for k in run.order}
    return {
        "dependencies": deps,
        "waiting": {k: set(d) for k, d in deps.items() if d},
        "ready": {k for k, d in deps.items() if not d},
        "running": set(),
        "finished": set(),
        "released": set(),
        "cache": run.values,
    }


_ATOMS = frozenset((str, int, float, bool, bytes, type(None)))


def _fill(a: Any, values: Mapping[Any, Any]) -> Any:
    kind = type(a)
    if kind in _ATOMS:
        return a
    if kind is TaskRef:
        return values[a.key]
    if kind in (list, tuple, set, frozenset):
        new = [_fill(x, values) for x in a]
        # An argument without references arrives as the very object that was given.
        if all([x is y for x, y in zip(a, new, strict=True)]):
            return a
        return kind(new)
    if kind is dict:
        filled = {k: _fill(v, values) for k, v in a.items()}
        return a if all([filled[k] is v for k, v in a.items()]) else filled
    if hasattr(kind, "add_callback") and hasattr(kind, "value") and hasattr(kind, "session"):
        return a.value()  # a future of a client: here its value is needed
    return a


def run_calls(
    calls: Iterable[Call], outputs: Sequence[Any], dsk: Any = None, callbacks: Any = None
) -> list[Any]:
    """Run calls in this thread.

    Parameters
    ----------
    calls : iterable of call
        With references of class `rasker.task_spec.TaskRef`.
    outputs : sequence of key
    dsk : mapping, optional
        The graph that callbacks are shown.
    callbacks : list of Callback, optional
        Default: those active.

    Returns
    -------
    list
        The values of `outputs`, in their order.
    """
    from rasker.callbacks import local_callbacks

    with local_callbacks(callbacks) as active:
        run = Run(calls, outputs, dsk, active)
        failed = True
        try:
            for key in run.order:
                if active:
                    run.before(key)
                func, args, kwargs = run.arguments(key)
                value = func(*args, **kwargs) if kwargs else func(*args)
                del args, kwargs
                run.after(key, value, 0)
                del value
            failed = False
        finally:
            run.finish(failed)
        return [run.values[k] for k in outputs]


def _run_sync(
    lower: Callable[[type], tuple[list[Call], Any]], keys: list[Any], **kwargs: Any
) -> list[Any]:
    return run_calls(lower(TaskRef)[0], keys, callbacks=kwargs.get("callbacks"))


def get_sync(dsk: Mapping[Any, Any], keys: Any, **kwargs: Any) -> Any:
    """Run a graph in the caller's thread.

    Parameters
    ----------
    dsk : mapping
        The graph.
    keys : key or nested list of keys

    Returns
    -------
    object
        The value, or nested tuples of values.

    Examples
    --------
    >>> get_sync({"x": 1, "y": (sum, ["x", "x"])}, "y")
    2
    """
    return _get(_run_with_graph, dsk, keys, **kwargs)


def _run_with_graph(calls: list[Call], flat: list[Any], dsk: Any, kwargs: Any) -> list[Any]:
    return run_calls(calls, flat, dsk, kwargs.get("callbacks"))


def _get(runner: Callable[..., list[Any]], dsk: Any, keys: Any, **kwargs: Any) -> Any:
    dsk = as_mapping(dsk)
    flat = list(dict.fromkeys(flatten(keys))) if isinstance(keys, list) else [keys]
    values = runner(lower_graph(dsk, TaskRef), flat, dsk, kwargs)
    return nested_get(keys, dict(zip(flat, values, strict=True)))


def as_mapping(dsk: Any) -> Mapping[Any, Any]:
    """A graph as a mapping; expressions and collections are asked for theirs."""
    if hasattr(dsk, "items"):
        return dsk  # type: ignore[no-any-return]
    return dsk.__dask_graph__()  # type: ignore[no-any-return]


get_sync.rasker_runner = _run_sync  # type: ignore[attr-defined]


def _call_in_executor(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    import threading

    value = func(*args, **kwargs) if kwargs else func(*args)
    return value, (os.getpid(), threading.get_ident())


def run_in_executor(
    submit: Callable[..., Any],
    num_workers: int,
    calls: Iterable[Call],
    outputs: Sequence[Any],
    dsk: Any = None,
    callbacks: Any = None,
) -> list[Any]:
    """Run calls through the `submit` of an executor, at most `num_workers` at a time."""
    import heapq
    from queue import SimpleQueue

    from rasker.callbacks import local_callbacks

    with local_callbacks(callbacks) as active:
        run = Run(calls, outputs, dsk, active)
        place = {k: i for i, k in enumerate(run.order)}
        missing = {k: len(run.dependencies[k]) for k in run.order}
        dependents: dict[Any, list[Any]] = {k: [] for k in run.order}
        for k in run.order:
            for d in run.dependencies[k]:
                dependents[d].append(k)
        ready = [place[k] for k in run.order if not missing[k]]
        ended: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
        running: dict[Any, Any] = {}
        failed = True
        try:
            while ready or running:
                while ready and len(running) < num_workers:
                    key = run.order[heapq.heappop(ready)]
                    run.before(key)
                    future = submit(_call_in_executor, *run.arguments(key))
                    running[key] = future
                    future.add_done_callback(lambda f, key=key: ended.put((key, f)))
                key, future = ended.get()
                del running[key]
                value, worker_id = future.result()
                run.after(key, value, worker_id)
                del value, future
                for k in dependents[key]:
                    missing[k] -= 1
                    if not missing[k]:
                        heapq.heappush(ready, place[k])
            failed = False
        finally:
            for future in running.values():
                future.cancel()
            run.finish(failed)
        return [run.values[k] for k in outputs]


def get_async(
    submit: Callable[..., Any], num_workers: int, dsk: Mapping[Any, Any], result: Any, **kwargs: Any
) -> Any:
    """Run a graph through an executor.

    Parameters
    ----------
    submit : callable
        The method ``submit`` of a `concurrent.futures.Executor`.
    num_workers : int
        How many tasks may be with the executor at a time.
    dsk : mapping
        The graph.
    result : key or nested list of keys
    """

    def runner(calls: list[Call], flat: list[Any], dsk: Any, kwargs: Any) -> list[Any]:
        return run_in_executor(submit, num_workers, calls, flat, dsk, kwargs.get("callbacks"))

    return _get(runner, dsk, result, **kwargs)


def executor_scheduler(executor: Any, num_workers: int | None = None) -> Callable[..., Any]:
    """A scheduler function that runs tasks in `executor`."""
    n = num_workers or getattr(executor, "_max_workers", None) or CPU_COUNT

    def get(dsk: Mapping[Any, Any], keys: Any, **kwargs: Any) -> Any:
        return get_async(executor.submit, kwargs.pop("num_workers", None) or n, dsk, keys, **kwargs)

    def runner(lower: Callable[[type], Any], keys: list[Any], **kwargs: Any) -> list[Any]:
        many = kwargs.get("num_workers") or n
        return run_in_executor(executor.submit, many, lower(TaskRef)[0], keys)

    get.rasker_runner = runner  # type: ignore[attr-defined]
    return get
