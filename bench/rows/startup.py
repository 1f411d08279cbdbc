"""What one pays before the first task: the import, the start, and idling."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Generator
from typing import Any

from bench.row import Family, Outcome, Row, Setup

FIRST_RESULT = {
    "rasker": """
from rasker.distributed import Client, LocalCluster
c = Client(LocalCluster(n_workers=2, threads_per_worker=1))
print("FIRST", c.submit(abs, -7).result(), time.perf_counter() - started, flush=True)
c.close()
""",
    "dask": """
from dask.distributed import Client, LocalCluster
c = Client(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None))
print("FIRST", c.submit(abs, -7).result(), time.perf_counter() - started, flush=True)
c.close()
""",
    "frisky": """
import frisky
cluster = frisky.LocalCluster(n_workers=2, threads_per_worker=1, processes=True)
c = cluster.get_client()
print("FIRST", c.submit(abs, -7).result(), time.perf_counter() - started, flush=True)
c.close(); cluster.close()
""",
    "ray": """
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**9)
print("FIRST", ray.get(ray.remote(lambda: abs(-7)).remote()), time.perf_counter() - started)
ray.shutdown()
""",
    "futures": """
from concurrent.futures import ProcessPoolExecutor
c = ProcessPoolExecutor(2)
print("FIRST", c.submit(abs, -7).result(), time.perf_counter() - started, flush=True)
c.shutdown()
""",
}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A cluster that starts processes by "spawn" imports the main module again: none here.
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def imported(peer: Any, n: int) -> Generator[Outcome | None, None, None]:
    """The cumulative microseconds that `-X importtime` gives for the package."""
    yield None
    micros = []
    for _ in range(n):
        report = python("-X", "importtime", "-c", f"import {peer.package}").stderr
        lines = [line.split("|") for line in report.splitlines() if line.count("|") == 2]
        total = [int(each[1]) for each in lines if each[2].strip() == peer.package]
        micros.append(total[-1])
    yield Outcome(len(micros), n, {"wall": min(micros) / 1e6})


def started(peer: Any, n: int) -> Generator[Outcome | None, None, None]:
    name = "futures" if peer.package == "concurrent.futures" else peer.package
    body = "\n".join(f"    {line}" for line in FIRST_RESULT[name].strip().splitlines())
    program = "import time\nstarted = time.perf_counter()\n"
    program += f"if __name__ == '__main__':\n{body}\n"
    yield None
    times = []
    for _ in range(n):
        printed = python("-c", program).stdout.split("FIRST", 1)[1].split()
        if printed[0] != "7":
            raise RuntimeError(f"{printed[0]} is not 7")
        times.append(float(printed[1]))
    yield Outcome(len(times), n, {"wall": sum(times) / n})


def idle(peer: Any, seconds: int) -> Generator[Outcome | None, None, None]:
    """The harness counts the CPU seconds of the whole tree; divided by seconds, a share."""
    time.sleep(0.5)
    yield None
    time.sleep(seconds)
    yield Outcome(seconds, seconds)


COLD = Family(
    "startup",
    (
        Row(
            "import",
            "import, above the bare interpreter",
            imported,
            lambda n: n,
            {"": 3},
            goal="≤ 40 ms",
            quick=3,
        ),
        Row(
            "first-result",
            "new process: import, `LocalCluster(n_workers=2)`, first result",
            started,
            lambda n: n,
            {"": 1},
            goal="≤ 0.4 s",
            quick=1,
        ),
    ),
    {name: Setup(mode="none") for name in ("rasker", "dask", "frisky", "ray", "futures")},
)

IDLE = Family(
    "idle",
    (
        Row(
            "cpu",
            "an idle cluster: share of a core",
            idle,
            lambda seconds: seconds,
            {"": 5},
            goal="< 0.005",
            quick=2,
            headline="cpu",
        ),
    ),
    {name: Setup() for name in ("rasker", "dask", "frisky", "ray")},
)
