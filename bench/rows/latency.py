"""One task at a time: from `submit` to its result."""

from __future__ import annotations

import time
from collections.abc import Generator
from itertools import count
from typing import Any

from bench.row import Family, Outcome, Row, Setup
from bench.tasks import inc

# Arguments that were never used before, so that no peer can answer from an earlier result.
FRESH = count(1_000_000_000)


def round_trips(peer: Any, n: int) -> Generator[Outcome | None, None, None]:
    for _ in range(20):
        peer.result(peer.submit(inc, next(FRESH)))
    yield None
    times = []
    n_right = 0
    for _ in range(n):
        item = next(FRESH)
        started = time.perf_counter()
        value = peer.result(peer.submit(inc, item))
        times.append(time.perf_counter() - started)
        n_right += value == item + 1
    times.sort()
    costs = {"p50": times[n // 2], "p99": times[n * 99 // 100]}
    yield Outcome(n_right, n, costs)


FAMILY = Family(
    "latency",
    (
        Row(
            "submit",
            "`submit(inc, i).result()`",
            round_trips,
            lambda n: n,
            {"": 2000, "dask": 300, "ray": 500},
            goal="1/50 of Dask's, not above Frisky's",
            needs=frozenset({"submit"}),
            headline="p50",
            quick=3,
        ),
    ),
    {name: Setup() for name in ("rasker", "dask", "frisky", "ray", "futures")},
)
