"""A 128 MB NumPy array: to a client, between workers of one host, and over TCP."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from bench.row import Family, Outcome, Row, Setup
from bench.tasks import ends, ones

NBYTES = 128_000_000
N_ARRAYS = 3


def expected(nbytes: int) -> list[float]:
    return [2.0 * i + nbytes // 8 for i in range(N_ARRAYS)]


def to_client(peer: Any, nbytes: int) -> Generator[Outcome | None, None, None]:
    futures = [peer.submit(ones, nbytes, float(i)) for i in range(N_ARRAYS)]
    # A small task that reads each array ends only after the array is there.
    peer.gather([peer.submit(ends, future) for future in futures])
    yield None
    answer = [ends(peer.result(future)) for future in futures]
    yield Outcome(answer, N_ARRAYS)


def between_workers(peer: Any, nbytes: int) -> Generator[Outcome | None, None, None]:
    here, there = peer.workers()[:2]
    futures = [peer.submit_to(here, ones, nbytes, float(i)) for i in range(N_ARRAYS)]
    peer.wait(futures)
    yield None
    readers = [peer.submit_to(there, ends, future) for future in futures]
    answer = peer.gather(readers)
    yield Outcome(answer, N_ARRAYS)


TO_CLIENT = Family(
    "to-client",
    (
        Row(
            "array",
            "128 MB array: result to a client on the same host",
            to_client,
            expected,
            {"": NBYTES},
            goal="5 × Dask",
            needs=frozenset({"submit", "references"}),
        ),
    ),
    {name: Setup() for name in ("rasker", "dask", "frisky", "ray")},
)


def between(name: str, title: str, goal: str, shared_memory: bool) -> Family:
    setup = Setup(mode="workers", shared_memory=shared_memory)
    row = Row(
        "array",
        title,
        between_workers,
        expected,
        {"": NBYTES},
        goal=goal,
        needs=frozenset({"submit", "placement"}),
    )
    peers = {peer: setup for peer in ("rasker", "dask", "frisky")}
    return Family(name, (row,), peers)


SAME_HOST = between(
    "same-host", "128 MB array: between two worker processes on the same host", "5 × Dask", True
)
TCP = between("tcp", "128 MB array: between two workers over TCP loopback", "2 × Dask", False)
