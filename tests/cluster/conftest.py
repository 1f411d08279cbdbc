"""Schedulers and workers as programs of their own, each ended when its test ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

WITHIN = 20.0


class Programs:
    """Starts `rasker scheduler` and `rasker worker`; all share one scheduler file."""

    def __init__(self, folder):
        self.folder = folder
        self.file = str(folder / "scheduler.json")
        self.running = []

    def start(self, *arguments, **environment):
        """Start the program with these arguments; the process."""
        command = [sys.executable, "-m", "rasker.cli", *map(str, arguments)]
        log = open(self.folder / f"{len(self.running)}.log", "wb")  # noqa: SIM115
        with log:
            process = subprocess.Popen(
                command, env={**os.environ, **environment}, stdout=log, stderr=log
            )
        self.running.append(process)
        return process

    def scheduler(self, *arguments, **environment):
        process = self.start(
            "scheduler", "--port", 0, "--scheduler-file", self.file, *arguments, **environment
        )
        until = time.monotonic() + WITHIN
        while not os.path.exists(self.file):
            assert process.poll() is None, self.log(process)
            assert time.monotonic() < until, "the scheduler wrote no file"
            time.sleep(0.01)
        return process

    def worker(self, *arguments, **environment):
        return self.start(
            "worker",
            "--scheduler-file",
            self.file,
            "--nworkers",
            1,
            "--nthreads",
            1,
            *arguments,
            **environment,
        )

    def client(self, n_workers, **options):
        from rasker.distributed import Client

        client = Client(scheduler_file=self.file, **options)
        client.wait_for_workers(n_workers, timeout=WITHIN)
        return client

    def log(self, process):
        """What a program has said."""
        number = self.running.index(process)
        return (self.folder / f"{number}.log").read_text(errors="replace")

    def end(self):
        for process in reversed(self.running):
            if process.poll() is None:
                process.terminate()
        for process in self.running:
            try:
                process.wait(WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def programs(tmp_path):
    found = Programs(tmp_path)
    yield found
    found.end()
