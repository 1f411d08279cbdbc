"""What is known of the machine: its description, its load, the CPU time of a process tree."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil


def describe() -> dict[str, str]:
    """The header of a report: processor, cores, memory, kernel, interpreter."""
    model = platform.processor() or "unknown processor"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    memory = psutil.virtual_memory().total / 2**30
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def cpu_of_tree(root: psutil.Process) -> float:
    """User and system seconds of a process, its descendants, and those they have reaped."""
    seconds = 0.0
    for process in [root, *root.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def cpu_of_machine() -> float:
    """Seconds in which any core was busy, or was taken from us by the hypervisor."""
    with open("/proc/stat") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """What a stretch of time cost the tree that ran, and what everyone else used meanwhile."""

    cpu: float
    other: float


class Meter:
    """Measures one stretch for one process tree."""

    def __init__(self, root: psutil.Process) -> None:
        self.root = root
        self.machine = cpu_of_machine()
        self.tree = cpu_of_tree(root)

    def stop(self) -> Usage:
        cpu = cpu_of_tree(self.root) - self.tree
        machine = cpu_of_machine() - self.machine
        return Usage(cpu=max(cpu, 0.0), other=max(machine - cpu, 0.0))


def memory_of(process: psutil.Process) -> int:
    """The bytes that a process alone fills: anonymous pages, and its share of shared ones.

    Mapped files are no part of it: the kernel takes their pages back when it needs them.
    """
    nbytes = 0
    for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("Pss_Anon", "Pss_Shmem"):
            nbytes += int(value.split()[0]) << 10
    return nbytes


class PeakMemory(threading.Thread):
    """Asks every 50 ms how much memory this process and its descendants fill."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.root = psutil.Process()
        self.peak = 0
        self.over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.05):
            nbytes = 0
            for process in [self.root, *self.root.children(recursive=True)]:
                with contextlib.suppress(psutil.Error, OSError):
                    nbytes += memory_of(process)
            self.peak = max(self.peak, nbytes)

    def stop(self) -> int:
        self.over.set()
        self.join()
        return self.peak


@contextlib.contextmanager
def memory_limit(nbytes: int) -> Iterator[bool]:
    """Keep this process, and what it starts, within a memory cgroup; False if none can be made."""
    name = f"rasker-bench-{os.getpid()}"
    for root, limit in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ):
        folder = Path(root) / name
        try:
            folder.mkdir()
            (folder / limit).write_text(str(nbytes))
            (folder / "cgroup.procs").write_text(str(os.getpid()))
        except OSError:
            with contextlib.suppress(OSError):
                folder.rmdir()
            continue
        try:
            yield True
        finally:
            with contextlib.suppress(OSError):
                (Path(root) / "cgroup.procs").write_text(str(os.getpid()))
                folder.rmdir()
        return
    yield False
