"""A scheduler and workers as programs of their own, of Rasker or of Dask."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WITHIN = 30.0


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.extend(map(int, task.read_text().split()))
    return found


class Programs:
    """Processes that this one owns; only these are ever signaled."""

    def __init__(self, library: str, n_workers: int) -> None:
        self.library = library
        self.n_workers = n_workers
        self.folder = tempfile.TemporaryDirectory(prefix="chaos-")
        self.file = os.path.join(self.folder.name, "scheduler.json")
        self.log = open(os.path.join(self.folder.name, "log"), "wb")  # noqa: SIM115
        self.workers: list[subprocess.Popen[bytes]] = []
        self.frozen: list[subprocess.Popen[bytes]] = []
        # What is to be undone soon.
        self.pending: list[Callable[[], None]] = []
        self.scheduler = self._start(
            "scheduler", "--port", "0", "--scheduler-file", self.file, *self._quiet()
        )
        until = time.monotonic() + WITHIN
        while not os.path.exists(self.file):
            if self.scheduler.poll() is not None or time.monotonic() > until:
                raise RuntimeError(self.said())
            time.sleep(0.02)
        for _ in range(n_workers):
            self.add_worker()

    def _quiet(self) -> list[str]:
        return ["--no-dashboard"] if self.library == "dask" else []

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        module = "rasker.cli" if self.library == "rasker" else "dask"
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def add_worker(self) -> None:
        options = ["--nworkers", "1", "--nthreads", "1", *self._quiet()]
        self.workers.append(self._start("worker", "--scheduler-file", self.file, *options))

    def connect(self) -> Any:
        distributed = importlib.import_module(f"{self.library}.distributed")
        client = distributed.Client(scheduler_file=self.file)
        client.wait_for_workers(self.n_workers, timeout=WITHIN)
        return client

    def executors(self) -> list[int]:
        """Processes in which tasks run."""
        return [pid for worker in self.workers for pid in children(worker.pid)]

    def said(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_text(errors="replace")[-4000:]

    def end(self) -> None:
        for worker in self.frozen:
            with contextlib.suppress(OSError):
                os.kill(worker.pid, signal.SIGCONT)
        running = [*self.workers, *self.frozen, self.scheduler]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.log.close()
        self.folder.cleanup()
