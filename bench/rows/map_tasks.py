"""Many small tasks from one call: throughput, flatness, bytes on the wire, first result."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from bench.row import Family, Outcome, Row, Setup
from bench.tasks import inc

Cell = Generator[Outcome | None, None, None]

# The slower peers get fewer tasks: their cost per task does not fall with more.
SIZES = {"": 100_000, "dask": 5_000, "ray": 10_000}


def checksum(values: list[int]) -> list[int]:
    return [len(values), sum(values), values[0], values[-1]]


def expected(n: int) -> list[int]:
    return [n, n * (n + 1) // 2, 1, n]


def gather_map(peer: Any, n: int) -> Cell:
    yield None
    values = peer.gather(peer.map(inc, range(n)))
    yield Outcome(checksum(values), n)


def gather_map_flat(peer: Any, n: int) -> Cell:
    """A tenth of the tasks first, so that both costs per task come from the same seconds."""
    started = time.perf_counter()
    peer.gather(peer.map(inc, range(n // 10)))
    small = (time.perf_counter() - started) / (n // 10)
    yield None
    started = time.perf_counter()
    values = peer.gather(peer.map(inc, range(n)))
    large = (time.perf_counter() - started) / n
    yield Outcome(checksum(values), n, {"growth": large / small})


def first_result(peer: Any, n: int) -> Cell:
    yield None
    started = time.perf_counter()
    futures = peer.map(inc, range(n))
    first = next(iter(futures)) if not hasattr(futures, "__getitem__") else futures[0]
    value = peer.result(first)
    yield Outcome([value, n], 1, {"wall": time.perf_counter() - started})
    # The rest is let finish, so that it does not run into the next peer's time.
    rest = peer.gather(futures)
    if rest is not None and len(rest) not in (n, n - 1):
        raise RuntimeError(f"{len(rest)} values came of {n} tasks")


def list_bytes(peer: Any, n: int) -> Cell:
    items = list(range(n))
    yield None
    before = peer.bytes_sent()
    futures = peer.map(inc, items)
    last = peer.result(futures[n - 1])
    yield Outcome([last], n, {"bytes": peer.bytes_sent() - before})
    peer.gather(futures)


def range_bytes(peer: Any, n: int) -> Cell:
    yield None
    before = peer.bytes_sent()
    started = time.perf_counter()
    futures = peer.map(inc, range(n))
    returned = time.perf_counter() - started
    first = peer.result(futures[0])
    sent = peer.bytes_sent() - before
    yield Outcome([first, len(futures)], 1, {"wall": returned, "bytes": sent})
    del futures
    # The next cell's tasks would otherwise queue behind those which are now released.
    peer.result(peer.submit(inc, 0))


PEERS = {
    name: Setup() for name in ("rasker", "dask", "frisky", "ray", "joblib", "futures")
}

FAMILY = Family(
    "map",
    (
        Row(
            "throughput",
            "`gather(map(inc, range(100_000)))`, per task",
            gather_map,
            expected,
            SIZES,
            goal="200 × Dask, 10 × Frisky",
            needs=frozenset({"map"}),
        ),
        Row(
            "million",
            "the same with 1,000,000: cost per task against 100,000",
            gather_map_flat,
            expected,
            {"": 1_000_000},
            goal="≤ 1.2",
            needs=frozenset({"map", "first"}),
            skip=frozenset({"dask", "frisky", "ray", "joblib", "futures"}),
            headline="growth",
        ),
        Row(
            "first",
            "`map` of 100,000: time to the first result",
            first_result,
            lambda n: [1, n],
            SIZES,
            goal="≤ 20 ms",
            needs=frozenset({"map", "first"}),
            per_task=False,
        ),
        Row(
            "list-bytes",
            "`map` over a list of 1 M integers: bytes sent",
            list_bytes,
            lambda n: [n],
            {"": 1_000_000},
            goal="≤ 10 MB",
            needs=frozenset({"map", "bytes_sent"}),
            headline="bytes",
        ),
        Row(
            "range-bytes",
            "`map` over `range(10_000_000)`: time until it returns, and bytes sent",
            range_bytes,
            lambda n: [1, n],
            {"": 10_000_000},
            goal="≤ 50 ms, ≤ 1 KB",
            needs=frozenset({"map", "bytes_sent"}),
            per_task=False,
            headline="bytes",
        ),
    ),
    PEERS,
)
