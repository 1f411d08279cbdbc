"""Sending tasks in groups must not cost balance: uneven tasks still fill both slots."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from bench.row import Family, Outcome, Row, Setup
from bench.tasks import spin

N_SLOTS = 2


def durations(n: int, uneven: bool) -> list[float]:
    long = {i for i in range(n) if i % 100 == 50} if uneven else set()
    return [0.020 if i in long else 0.001 for i in range(n)]


def balance(uneven: bool) -> Any:
    def cell(peer: Any, n: int) -> Generator[Outcome | None, None, None]:
        items = durations(n, uneven)
        peer.gather(peer.map(spin, [0.001] * 4))
        yield None
        started = time.perf_counter()
        spent = peer.gather(peer.map(spin, items))
        wall = time.perf_counter() - started
        # The tasks' own durations, so that a slow core counts against nobody.
        ideal = max(sum(spent) / N_SLOTS, max(spent))
        answered = [a >= b for a, b in zip(spent, items, strict=True)]
        yield Outcome([len(spent), all(answered)], n, {"schedule": wall / ideal})

    return cell


def row(name: str, title: str, uneven: bool, goal: str) -> Row:
    return Row(
        name,
        title,
        balance(uneven),
        lambda n: [n, True],
        {"": 1000},
        goal=goal,
        needs=frozenset({"map"}),
        headline="schedule",
        quick=1,
    )


FAMILY = Family(
    "balance",
    (
        row("uneven", "1,000 tasks of 1 ms, 1 in 100 of 20 ms: × the ideal schedule", True, "≤ 1.1"),
        row("even", "1,000 tasks of 1 ms: × the ideal schedule", False, "≤ 1.11 (90 % efficient)"),
    ),
    {name: Setup() for name in ("rasker", "dask", "frisky", "ray", "joblib", "futures")},
)
