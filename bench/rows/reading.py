"""Text to a table: CSV and NDJSON with their types to be found out."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from bench.row import Family, Outcome, Row, Setup
from bench.tables.answers import connect
from bench.tables.data import made_once, tables

Cell = Generator[Outcome | None, None, None]


def text_file(ending: str, n_rows: int) -> str:
    """So many rows of lineitem."""
    form = {"csv": "FORMAT csv", "ndjson": "FORMAT json"}[ending]

    def make(folder: Path) -> None:
        connect({"lineitem": tables("tpch", "1")["lineitem"]}).execute(
            f"COPY (FROM lineitem LIMIT {n_rows}) TO '{folder}/rows.{ending}' ({form})"
        )

    return str(made_once(f"{ending}-{n_rows}", make) / f"rows.{ending}")


def summary(table: Any) -> list[Any]:
    """Enough of a table to know that it is the right one, and cheap."""
    import pyarrow.compute

    sums = [
        float(pyarrow.compute.sum(table.column(name)).as_py())
        for name in ("l_orderkey", "l_quantity", "l_extendedprice")
    ]
    n_texts = pyarrow.compute.sum(pyarrow.compute.utf8_length(table.column("l_comment"))).as_py()
    return [table.num_rows, table.num_columns, n_texts, *sums]


def reads(ending: str) -> Callable[[Any, int], Cell]:
    def cell(peer: Any, n_rows: int) -> Cell:
        path = text_file(ending, n_rows)
        yield None
        # To open a file is a part of it: that is when types are found out.
        peer.open({"t": path})
        yield Outcome(summary(peer.ask("SELECT * FROM t")), n_rows)

    return cell


def expected(ending: str) -> Callable[[int], list[Any]]:
    def answer(n_rows: int) -> list[Any]:
        n, *sums = (
            connect({"t": text_file(ending, n_rows)})
            .execute(
                """SELECT count(*), sum(length(l_comment)), sum(l_orderkey), sum(l_quantity),
                sum(l_extendedprice) FROM t"""
            )
            .fetchone()
        )
        return [n, 16, int(sums[0]), *map(float, sums[1:])]

    return answer


def row(ending: str, title: str, n_rows: int) -> Row:
    return Row(
        ending,
        title,
        reads(ending),
        expected(ending),
        {"": n_rows},
        goal="0.8 × the better of DuckDB and Polars in speed",
        needs=frozenset({ending}),
    )


FAMILY = Family(
    "reading",
    (
        row("csv", "CSV of 120 MB to a table, per row", 1_000_000),
        row("ndjson", "NDJSON of 160 MB to a table, per row", 500_000),
    ),
    {name: Setup(mode="tables") for name in ("rasker", "datafusion", "polars", "duckdb")},
)
