"""TPC-H and TPC-DS from Parquet: every answer is compared with DuckDB's."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

from bench.machine import PeakMemory, memory_limit
from bench.row import Family, Outcome, Row, Setup
from bench.tables.answers import stored_answers, wrong
from bench.tables.data import tables
from bench.tables.texts import texts

LIMIT = 2 << 30
# What the kernel lets the processes have: a tenth above what they are told.
HARD_LIMIT = LIMIT + LIMIT // 10
ENOUGH_RIGHT = 95

Cell = Generator[Outcome | None, None, None]


def scale_of(tenths: int) -> str:
    """Sizes are integers, in tenths of a scale: 100 is scale 10, and 1 is 0.1."""
    return str(tenths // 10) if tenths % 10 == 0 else str(tenths / 10)


def ask_all(peer: Any, kind: str) -> tuple[dict[str, Any], dict[str, float]]:
    """The answers to all texts, with the seconds of each."""
    answers, seconds = {}, {}
    for name, text in texts(kind).items():
        started = time.perf_counter()
        answers[name] = peer.ask(text)
        seconds[name] = time.perf_counter() - started
    return answers, seconds


def difference(answers: Any, expected: Any) -> str:
    asked = texts("tpch")
    for name, right in expected.items():
        if text := wrong(answers[name], right, asked[name]):
            return f"{name}: {text}"
    return ""


def tpch(peer: Any, tenths: int) -> Cell:
    peer.open(tables("tpch", scale_of(tenths)))
    yield None
    answers, seconds = ask_all(peer, "tpch")
    yield Outcome(answers, 1, seconds)


def limited(peer: Any, tenths: int) -> Cell:
    """The same where all processes of the peer together may fill 2 GB."""
    with memory_limit(HARD_LIMIT):
        peer.open(tables("tpch", scale_of(tenths)), LIMIT)
        yield None
        meter = PeakMemory()
        try:
            answers, seconds = ask_all(peer, "tpch")
        finally:
            peak = meter.stop()
        yield Outcome(answers, 1, {**seconds, "peak": float(peak)})
        peer.open({})


def tpcds(peer: Any, tenths: int) -> Cell:
    """Goes on after a wrong answer, and counts them: some are expected to be wrong."""
    scale = scale_of(tenths)
    right, asked = stored_answers("tpcds", scale), texts("tpcds")
    peer.open(tables("tpcds", scale))
    yield None
    answers: dict[str, Any] = {}
    failed: dict[str, str] = {}
    started = time.perf_counter()
    for name, text in asked.items():
        try:
            answers[name] = peer.ask(text)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {str(error).strip()[:200]}"
    wall = time.perf_counter() - started
    for name, answer in answers.items():
        if text := wrong(answer, right[name], asked[name]):
            failed[name] = text
    for name, text in failed.items():
        print(f"tpcds {name}: {text}", flush=True)
    is_enough = len(asked) - len(failed) >= ENOUGH_RIGHT
    answer = [is_enough, "" if is_enough else "; ".join(f"{n}: {t}" for n, t in failed.items())]
    yield Outcome(answer, 1, {"wall": wall, "wrong": float(len(failed))})


def expected(kind: str) -> Callable[[int], Any]:
    return lambda tenths: stored_answers(kind, scale_of(tenths))


def family(name: str, row: Row, *peers: str) -> Family:
    return Family(name, (row,), {peer: Setup(mode="tables") for peer in peers})


TPCH = family(
    "tpch",
    Row(
        "sf1",
        "TPC-H, scale 1, Parquet: all 22 queries",
        tpch,
        expected("tpch"),
        {"": 10},
        goal="0.75 × DataFusion; on 2 workers 1.6 × embedded",
        needs=frozenset({"sql"}),
        per_task=False,
        difference=difference,
    ),
    "rasker",
    "rasker-workers",
    "datafusion",
    "polars",
    "duckdb",
)

MEMORY = family(
    "tpch-memory",
    Row(
        "sf10",
        "TPC-H, scale 10, with 2 GB of memory in all",
        limited,
        expected("tpch"),
        {"": 100},
        goal="all right, peak ≤ 2.36 GB",
        needs=frozenset({"sql"}),
        per_task=False,
        headline="peak",
        limit_s=3600.0,
        difference=difference,
    ),
    "rasker",
    "rasker-workers",
    "datafusion",
    "duckdb",
)

TPCDS = family(
    "tpcds",
    Row(
        "sf1",
        "TPC-DS, scale 1, Parquet: all 99 queries",
        tpcds,
        lambda tenths: [True, ""],
        {"": 10},
        goal="≥ 95 right",
        needs=frozenset({"sql"}),
        per_task=False,
        headline="wrong",
        limit_s=1200.0,
    ),
    "rasker",
    "rasker-workers",
    "datafusion",
    "duckdb",
)
