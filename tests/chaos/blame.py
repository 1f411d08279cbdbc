"""One task that ends its executor among a thousand innocent ones, again and again:
``python -m tests.chaos.blame --runs 20``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from typing import Any

from rasker.distributed import Client, KilledWorker, LocalCluster

N_INNOCENT = 1000


def innocent(i: int) -> int:
    time.sleep(0.0005)
    return i + 1


def deadly() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


def once(client: Any, seed: int) -> float:
    """One run; its time."""
    started = time.perf_counter()
    before = {worker["pid"] for worker in client.scheduler_info()["workers"].values()}
    at = seed * 47 % N_INNOCENT
    futures = [client.submit(innocent, i, pure=False) for i in range(at)]
    guilty = client.submit(deadly, pure=False)
    futures += [client.submit(innocent, i, pure=False) for i in range(at, N_INNOCENT)]
    try:
        guilty.result(timeout=120)
    except KilledWorker as error:
        assert guilty.key in str(error), error
    else:
        raise AssertionError("a deadly task came to an end")
    assert client.gather(futures) == list(range(1, N_INNOCENT + 1))
    after = {worker["pid"] for worker in client.scheduler_info()["workers"].values()}
    assert before == after, "a worker process died"
    return time.perf_counter() - started


def runs(n: int) -> list[float]:
    with LocalCluster(n_workers=2, threads_per_worker=2) as cluster, Client(cluster) as client:
        return [once(client, seed) for seed in range(n)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.blame", description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    times = runs(args.runs)
    print(f"{len(times)} of {args.runs} runs right; the longest took {max(times):.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
