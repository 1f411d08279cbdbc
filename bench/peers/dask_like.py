"""Rasker and Dask: the same calls, since the API is the same. Only the import differs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from typing import Any

from bench.peers import Peer

FUTURES = frozenset({"map", "submit", "references", "first", "placement"})


class DaskLike(Peer):
    """A client with a cluster of its own, or the local scheduler behind `delayed`."""

    options: dict[str, Any] = {}
    can = FUTURES | {"delayed"}

    def start(self) -> None:
        library = import_module(self.package)
        self.delayed = library.delayed
        self.compute = library.compute
        if self.setup.mode == "cluster":
            distributed = import_module(f"{self.package}.distributed")
            n_workers, n_threads = (2, 1) if self.setup.processes else (1, 2)
            self.cluster = distributed.LocalCluster(
                n_workers=n_workers,
                threads_per_worker=n_threads,
                processes=self.setup.processes,
                **self.options,
            )
            self.client = distributed.Client(self.cluster)
        elif self.setup.mode == "workers":
            self.start_workers()

    def start_workers(self) -> None:
        raise NotImplementedError(f"{self.package} has no separate workers here")

    def stop(self) -> None:
        if self.setup.mode == "cluster":
            self.client.close()
            self.cluster.close()

    def submit(self, function: Any, *args: Any) -> Any:
        if self.setup.mode == "delayed":
            return self.delayed(function, pure=False)(*args)
        return self.client.submit(function, *args, pure=False)

    def submit_to(self, worker: str, function: Any, *args: Any) -> Any:
        return self.client.submit(function, *args, pure=False, workers=[worker])

    def map(self, function: Any, items: Any) -> Any:
        if self.setup.mode == "delayed":
            lazy = self.delayed(function, pure=False)
            return [lazy(item) for item in items]
        return self.client.map(function, items, pure=False)

    def gather(self, futures: Any) -> list[Any]:
        if self.setup.mode == "delayed":
            return list(self.compute(*futures, scheduler="threads", num_workers=2))
        return list(self.client.gather(futures))

    def result(self, future: Any) -> Any:
        return self.gather([future])[0] if self.setup.mode == "delayed" else future.result()

    def wait(self, futures: list[Any]) -> None:
        import_module(f"{self.package}.distributed").wait(futures)

    def workers(self) -> list[str]:
        # Dask lists the first five workers unless it is asked for all.
        return sorted(self.client.scheduler_info()["workers"])


class Dask(DaskLike):
    package = "dask"
    options = {"dashboard_address": None, "memory_limit": 0}

    def start_workers(self) -> None:
        """Dask's local cluster already is workers in processes of their own, joined over TCP."""
        distributed = import_module("dask.distributed")
        self.cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, **self.options
        )
        self.client = distributed.Client(self.cluster)

    def stop(self) -> None:
        if self.setup.mode in ("cluster", "workers"):
            self.client.close()
            self.cluster.close()


class DaskThreaded(DaskLike):
    """`dask.threaded`, which needs no cluster."""

    package = "dask"
    can = frozenset({"submit", "map", "references", "delayed"})

    def start(self) -> None:
        if self.setup.mode != "delayed":
            raise NotImplementedError("dask.threaded runs only what is delayed")
        super().start()


class Rasker(DaskLike):
    package = "rasker"
    can = FUTURES | {"delayed", "bytes_sent"}

    def bytes_sent(self) -> int:
        return int(self.client.bytes_sent())

    def start_workers(self) -> None:
        """Start `rasker scheduler` and two `rasker worker`, each a process of its own."""
        self.folder = tempfile.TemporaryDirectory()
        file = os.path.join(self.folder.name, "scheduler.json")
        environment = dict(os.environ)
        if not self.setup.shared_memory:
            environment["RASKER_TRANSPORT__SHARED_MEMORY"] = "false"
        command = [sys.executable, "-m", "rasker.cli"]
        scheduler = [*command, "scheduler", "--port", "0", "--scheduler-file", file]
        worker = [*command, "worker", "--scheduler-file", file, "--nworkers", "1"]
        self.processes = [subprocess.Popen(scheduler, env=environment)]
        deadline = time.monotonic() + 10
        while not os.path.exists(file) and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(2):
            self.processes.append(
                subprocess.Popen([*worker, "--nthreads", "1"], env=environment)
            )
        distributed = import_module("rasker.distributed")
        self.client = distributed.Client(scheduler_file=file)
        self.client.wait_for_workers(2)

    def stop(self) -> None:
        super().stop()
        if self.setup.mode == "workers":
            self.client.close()
            for process in reversed(self.processes):
                process.terminate()
                process.wait(10)
            self.folder.cleanup()
