"""The engine for `compute` without a client: started on first use, one per shape, kept.

Callbacks are served without a second scheduler: on threads each call is wrapped in one that tells
before and after; on processes every task is made an output whose end is told.
"""

from __future__ import annotations

import os
import threading
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rasker._native import LocalCluster, Session

_lock = threading.Lock()
_sessions: dict[tuple[bool, int], tuple[LocalCluster, Session]] = {}
_pid = os.getpid()


def session_for(processes: bool, num_workers: int | None) -> Session:
    """The session of the engine with this many threads, or processes; started if need be.

    Parameters
    ----------
    processes : bool
        Processes with one thread each, else one worker with threads.
    num_workers : int, optional
        Default: the configuration key ``num-workers``, else one per core.
    """
    global _pid
    if num_workers is None:
        from rasker import config

        num_workers = config.get("num-workers", None)
    if num_workers is None:
        from rasker.local import CPU_COUNT

        num_workers = CPU_COUNT
    shape = (processes, int(num_workers))
    with _lock:
        if _pid != os.getpid():
            # A fork has the objects but none of the threads behind them.
            _sessions.clear()
            _pid = os.getpid()
        found = _sessions.get(shape)
        if found is not None and found[1].status == "running":
            return found[1]
        from rasker import _native
        from rasker._registration import register

        register()
        cluster = _native.LocalCluster(
            n_workers=shape[1] if processes else 1,
            threads_per_worker=1 if processes else shape[1],
            processes=processes,
            memory_limit=0,
            name=None,
            local_directory=None,
            resources=None,
            listen=None,
            preload=(),
        )
        session = cluster.connect("local")
        if not _sessions:
            import atexit

            atexit.register(shut_down)
        _sessions[shape] = (cluster, session)
        return session


def shut_down() -> None:
    """End all engines that `compute` has started; the next use starts them again."""
    with _lock:
        if _pid == os.getpid():
            for cluster, session in _sessions.values():
                session.close()
                cluster.close()
        _sessions.clear()


def run_on_engine(
    processes: bool, lower: Callable[[type], Any], keys: list[Any], **kwargs: Any
) -> list[Any]:
    """Run calls on the engine and return the values of `keys`.

    Parameters
    ----------
    processes : bool
    lower : callable
        Given the class of references, returns the calls and the annotations.
    keys : list of key
    **kwargs
        `num_workers`; what else a scheduler might know is accepted and has no meaning here.
    """
    from rasker._native import Ref
    from rasker.callbacks import Callback

    session = session_for(processes, kwargs.get("num_workers"))
    calls, annotations = lower(Ref)
    if Callback.active or kwargs.get("callbacks"):
        return _Observed(session, processes, calls, keys, kwargs.get("callbacks")).run()
    from rasker.annotations import options_by_key

    notes = options_by_key(annotations)
    handles = session.graph(calls, keys, None, notes, getattr(lower, "fuse", True))
    return session.values(handles, False, None)


def get_on_engine(processes: bool, dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """Run a graph on the engine; the values have the nesting of `keys`, in tuples."""
    from rasker.core import flatten
    from rasker.local import as_mapping, nested_get
    from rasker.lowering import layer_annotations, lower_graph

    graph = as_mapping(dsk)
    flat = list(dict.fromkeys(flatten(keys))) if isinstance(keys, list) else [keys]

    def lower(ref: type) -> Any:
        return lower_graph(graph, ref), layer_annotations(dsk)

    values = run_on_engine(processes, lower, flat, **kwargs)
    return nested_get(keys, dict(zip(flat, values, strict=True)))


# Runs under observation, by a number that the wrapped calls carry: thread executors share this
# module, so a number is enough to find the run.
_observed: dict[int, _Observed] = {}
_numbers = iter(range(1, 1 << 62))


def _tell(number: int, key: Any, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    run = _observed[number]
    run.before(key)
    value = func(*args, **kwargs) if kwargs else func(*args)
    run.after(key, value, threading.get_ident())
    return value


class _Observed:
    """One run whose callbacks are told of each task."""

    def __init__(
        self, session: Session, processes: bool, calls: list[Any], keys: list[Any], callbacks: Any
    ) -> None:
        self.session = session
        self.processes = processes
        self.calls = calls
        self.keys = keys
        self.callbacks = callbacks
        self.dsk = {call[0]: call for call in calls}
        self.lock = threading.RLock()
        self.failed = False
        self.pretasks: list[Any] = []
        self.posttasks: list[Any] = []
        self.state: dict[str, Any] = {}

    def before(self, key: Any) -> None:
        with self.lock:
            self.state["ready"].discard(key)
            self.state["waiting"].pop(key, None)
            self.state["running"].add(key)
            for f in self.pretasks:
                f(key, self.dsk, self.state)

    def after(self, key: Any, value: Any, worker_id: Any) -> None:
        with self.lock:
            self.state["running"].discard(key)
            self.state["finished"].add(key)
            for f in self.posttasks:
                f(key, value, self.dsk, self.state, worker_id)

    def run(self) -> list[Any]:
        from rasker.callbacks import local_callbacks, unpack_callbacks

        with local_callbacks(self.callbacks) as active:
            starts, start_states, self.pretasks, self.posttasks, finishes = unpack_callbacks(active)
            if self.processes and self.pretasks:
                raise NotImplementedError(
                    "pretask callbacks cannot be served by the scheduler 'processes': tasks start "
                    "in other processes; use scheduler='threads' or 'sync'"
                )
            for f in starts:
                f(self.dsk)
            self._cull()
            for f in start_states:
                f(self.dsk, self.state)
            failed = True
            try:
                values = self._run_processes() if self.processes else self._run_threads()
                failed = False
            finally:
                for f in finishes:
                    f(self.dsk, self.state, failed)
            return values

    def _cull(self) -> None:
        from rasker._native import Ref
        from rasker.core import _walk
        from rasker.lowering import references

        deps = {call[0]: set(references(call, Ref)) for call in self.calls}
        order, cycle = _walk(deps, [k for k in self.keys if k in deps])
        if cycle:
            return  # the engine says it better
        needed = set(order)
        self.calls = [call for call in self.calls if call[0] in needed]
        deps = {k: deps[k] for k in order}
        self.state.update(
            dependencies=deps,
            waiting={k: set(d) for k, d in deps.items() if d},
            ready={k for k, d in deps.items() if not d},
            running=set(),
            finished=set(),
            released=set(),
            cache={},
        )

    def _run_threads(self) -> list[Any]:
        number = next(_numbers)
        _observed[number] = self
        try:
            calls = [
                (key, _tell, (number, key, func, args, kwargs), None)
                for key, func, args, kwargs in self.calls
            ]
            handles = self.session.graph(calls, self.keys, None, None, False)
            return self.session.values(handles, False, None)
        finally:
            del _observed[number]

    def _run_processes(self) -> list[Any]:
        # Every task is an output here, so that its end is told; each hold is given up at once.
        inner = [call[0] for call in self.calls]
        handles = self.session.graph(self.calls, [*self.keys, *inner], None, None, False)
        outputs, others = handles[: len(self.keys)], handles[len(self.keys) :]
        waiting = {h.key: h for h in others}
        del handles, others

        def ended(key: Any) -> None:
            handle = waiting.pop(key)
            status = handle.status
            handle.release()
            if status == "finished":
                self.after(key, None, "process")

        for key, handle in list(waiting.items()):
            handle.add_callback(partial(ended, key))
        values = self.session.values(outputs, False, None)
        while waiting:  # the last callbacks may be a moment behind the values
            threading.Event().wait(0.001)
        return values
