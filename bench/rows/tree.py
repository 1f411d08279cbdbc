"""A binary tree of sums: one `submit` each with futures as arguments, and with `delayed`."""

from __future__ import annotations

import time
from collections.abc import Generator
from itertools import count
from typing import Any

from bench.row import Family, Outcome, Row, Setup
from bench.tasks import add, inc

FRESH = count(0, 1_000_000)


def tree(peer: Any, n_leaves: int) -> Generator[Outcome | None, None, None]:
    first = next(FRESH)
    yield None
    started = time.perf_counter()
    level = [peer.submit(inc, first + i) for i in range(n_leaves)]
    while len(level) > 1:
        level = [peer.submit(add, a, b) for a, b in zip(level[::2], level[1::2], strict=True)]
    built = time.perf_counter() - started
    total = peer.result(level[0]) - first * n_leaves
    yield Outcome(total, 2 * n_leaves - 1, {"build": built / (2 * n_leaves - 1)})


def expected(n_leaves: int) -> int:
    return n_leaves * (n_leaves + 1) // 2


def row(name: str, title: str, sizes: dict[str, int], goal: str) -> Row:
    needs = frozenset({"submit", "references"})
    return Row(name, title, tree, expected, sizes, goal=goal, needs=needs, quick=8)


SUBMITTED = Family(
    "tree",
    (
        row(
            "submit",
            "binary tree of 16,383 tasks, one `submit` each, per task",
            {"": 8192, "dask": 1024, "ray": 1024},
            "60 × Dask, 3 × Frisky",
        ),
    ),
    {name: Setup() for name in ("rasker", "dask", "frisky", "ray")},
)

DELAYED = Family(
    "delayed",
    (
        row(
            "tree",
            "the same tree with `delayed`, default local scheduler, per task",
            {"": 8192},
            "5 × `dask.threaded`",
        ),
    ),
    {name: Setup(mode="delayed") for name in ("rasker", "dask-threaded")},
)
