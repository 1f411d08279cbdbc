"""A seat at the table: one peer in a process of its own, driven over a socket pair."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from bench.machine import Meter, Usage
from bench.row import Outcome, Row

ROOT = Path(__file__).resolve().parent.parent
START_S = 60.0

# Two cores are shared by two workers: a library's own threads would only compete with them.
SINGLE_THREADED = {
    name: "1"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
}


class PeerError(Exception):
    """The peer cannot take part, or a cell of it failed; the text says why."""


class Seat:
    """Starts the peer at once; raises `PeerError` if it cannot be had."""

    def __init__(self, name: str, family: str) -> None:
        self.name = name
        ours, theirs = socket.socketpair()
        self.log = tempfile.TemporaryFile("w+")
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.serve", str(theirs.fileno()), name, family],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            cwd=ROOT,
            env={**os.environ, **SINGLE_THREADED, "PYTHONPATH": path},
            start_new_session=True,
        )
        theirs.close()
        self.connection = Connection(ours.detach())
        try:
            reply = self.expect(START_S, "ready", "unavailable")
        except PeerError:
            self.kill()
            raise
        if reply[0] == "unavailable":
            self.process.wait()
            raise PeerError(f"cannot be imported: {reply[1]}")
        self.version: str = reply[1]
        self.can: frozenset[str] = frozenset(reply[2])

    def expect(self, limit_s: float, *kinds: str) -> Any:
        """Wait for a reply of one of these kinds; end the peer if none comes."""
        if not self.connection.poll(limit_s):
            self.kill()
            raise PeerError(f"gave no answer for {limit_s:.0f} s\n{self.tail()}")
        try:
            reply = self.connection.recv()
        except (EOFError, ConnectionError):
            self.kill()
            raise PeerError(f"its process ended\n{self.tail()}") from None
        if reply[0] not in kinds:
            raise PeerError(str(reply[1]))
        return reply

    def measure(self, row: Row, size: int, n_repeats: int) -> tuple[float, Usage, list[Outcome]]:
        """Run a cell; return the wall seconds of its timed part, the usage, the outcomes."""
        self.connection.send((row.name, size, n_repeats))
        self.expect(row.limit_s, "prepared")
        meter = Meter(psutil.Process(self.process.pid))
        self.connection.send(("go",))
        _, wall, outcomes = self.expect(row.limit_s, "done")
        usage = meter.stop()
        self.connection.send(("finish",))
        self.expect(row.limit_s, "clean")
        return wall, usage, outcomes

    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        try:
            self.connection.send(None)
            self.expect(START_S, "stopped")
            self.process.wait(20)
        except (PeerError, OSError, subprocess.TimeoutExpired):
            pass
        self.kill()

    def kill(self) -> None:
        """End the peer and whatever it has started and left in its session."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        time.sleep(0.05)

    def tail(self) -> str:
        self.log.seek(0)
        return "".join(self.log.readlines()[-15:])
