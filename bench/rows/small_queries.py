"""A query to five rows: what is left is what every query pays."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

from bench.row import Family, Outcome, Row, Setup
from bench.tables.answers import connect, rows_of
from bench.tables.data import made_once

Cell = Generator[Outcome | None, None, None]

QUESTION = "SELECT city, sum(n) AS total FROM {} GROUP BY city ORDER BY city"
ANSWER = [["Lima", 7], ["Oslo", 5], ["Rome", 3]]


def five_rows() -> str:
    def make(folder: Path) -> None:
        rows = "('Oslo', 1), ('Lima', 2), ('Rome', 3), ('Oslo', 4), ('Lima', 5)"
        connect({}).execute(
            f"COPY (SELECT * FROM (VALUES {rows}) AS t(city, n)) TO '{folder}/five.parquet'"
        )

    return str(made_once("five-rows", make) / "five.parquet")


def warm(peer: Any, n: int) -> Cell:
    peer.open({"five": five_rows()})
    answer = [list(row) for row in rows_of(peer.ask(QUESTION.format("five")))]
    yield None
    for _ in range(n):
        answer = [list(row) for row in rows_of(peer.ask(QUESTION.format("five")))]
    yield Outcome([[city, int(total)] for city, total in answer], n)


def cold(peer: Any, n: int) -> Cell:
    """A process from its start to its last byte."""
    command = peer.command(QUESTION.format(f"'{five_rows()}'"))
    yield None
    found = []
    for _ in range(n):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        found = [city for city, _ in ANSWER if str(city) in done.stdout]
    yield Outcome(found, n)


FAMILY = Family(
    "small-queries",
    (
        Row(
            "warm",
            "a query on 5 rows, warm",
            warm,
            lambda n: ANSWER,
            {"": 100},
            goal="≤ 3 ms",
            needs=frozenset({"warm"}),
        ),
        Row(
            "command",
            "`rasker sql -c` on 5 rows, from start to last byte",
            cold,
            lambda n: [city for city, _ in ANSWER],
            {"": 3},
            goal="≤ 0.3 s",
            needs=frozenset({"warm"}),
            quick=3,
            skip=frozenset({"datafusion"}),
        ),
    ),
    {name: Setup(mode="tables") for name in ("rasker", "datafusion", "polars", "duckdb")},
)
