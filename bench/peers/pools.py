"""The pools: joblib and the standard library. They map and submit, but keep nothing for later.

Each sends items in groups, as its documentation advises for short calls.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from bench.peers import Peer


class Futures(Peer):
    package = "concurrent.futures"
    can = frozenset({"map", "submit", "first"})

    def start(self) -> None:
        self.pool: Executor | None = None
        if self.setup.mode == "none":
            return
        if self.setup.processes:
            context = multiprocessing.get_context("forkserver")
            self.pool = ProcessPoolExecutor(2, mp_context=context)
        else:
            self.pool = ThreadPoolExecutor(2)

    def stop(self) -> None:
        if self.pool is not None:
            self.pool.shutdown()

    def running(self) -> Executor:
        if self.pool is None:
            raise RuntimeError("pool was not started")
        return self.pool

    def submit(self, function: Any, *args: Any) -> Any:
        return self.running().submit(function, *args)

    def map(self, function: Any, items: Any) -> Any:
        items = list(items)
        return self.running().map(function, items, chunksize=max(1, len(items) // 256))

    def gather(self, futures: Any) -> list[Any]:
        return [f.result() if isinstance(f, Future) else f for f in futures]


class Joblib(Peer):
    """Joblib runs a whole list and returns it; there is nothing to hold on to before."""

    package = "joblib"
    can = frozenset({"map"})

    def start(self) -> None:
        import joblib

        self.joblib = joblib
        backend = "loky" if self.setup.processes else "threading"
        self.parallel = joblib.Parallel(n_jobs=2, backend=backend).__enter__()

    def stop(self) -> None:
        self.parallel.__exit__(None, None, None)

    def map(self, function: Any, items: Any) -> Any:
        call = self.joblib.delayed(function)
        return self.parallel(call(item) for item in items)

    def gather(self, futures: Any) -> list[Any]:
        return list(futures)
