"""What Dask's dataframe does as well: an aggregation of TPC-H, and a shuffle."""

from __future__ import annotations

import datetime
from collections.abc import Generator
from pathlib import Path
from typing import Any

from bench.row import Family, Outcome, Row, Setup
from bench.tables.answers import connect, rows_of, stored_answers
from bench.tables.data import made_once, tables
from bench.tables.texts import texts

Cell = Generator[Outcome | None, None, None]

NBYTES_PER_ROW = 40
N_MEGABYTES = 1000


def dask_query_1(peer: Any) -> Any:
    """Query 1 as Dask's users write it; decimals become floats, as pandas has no sums of them."""
    decimals = ["l_quantity", "l_extendedprice", "l_discount", "l_tax"]
    columns = [*decimals, "l_returnflag", "l_linestatus", "l_shipdate"]
    frame = peer.frame("lineitem", columns=columns)
    frame = frame.astype(dict.fromkeys(decimals, "float64"))
    frame = frame[frame.l_shipdate <= datetime.date(1998, 9, 2)]
    frame["disc_price"] = frame.l_extendedprice * (1 - frame.l_discount)
    frame["charge"] = frame.disc_price * (1 + frame.l_tax)
    grouped = frame.groupby(["l_returnflag", "l_linestatus"]).agg(
        {
            "l_quantity": ["sum", "mean"],
            "l_extendedprice": ["sum", "mean"],
            "disc_price": "sum",
            "charge": "sum",
            "l_discount": "mean",
            "l_tax": "count",
        }
    )
    return grouped.compute().sort_index()


def of_dask(frame: Any) -> list[list[Any]]:
    """In the order of the columns of the text."""
    order = [
        ("l_quantity", "sum"),
        ("l_extendedprice", "sum"),
        ("disc_price", "sum"),
        ("charge", "sum"),
        ("l_quantity", "mean"),
        ("l_extendedprice", "mean"),
        ("l_discount", "mean"),
        ("l_tax", "count"),
    ]
    return [[*key, *(row[column].item() for column in order)] for key, row in frame.iterrows()]


def query_1(peer: Any, tenths: int) -> Cell:
    peer.open(tables("tpch", "1"))
    text = texts("tpch")["q01"]
    yield None
    if "frames" in peer.can:
        answer = of_dask(dask_query_1(peer))
    else:
        answer = [list(row) for row in rows_of(peer.ask(text))]
    yield Outcome(answer)


def shuffle_file(n_megabytes: int) -> str:
    """Rows of 40 bytes in memory; on disk they are small, so that reading them is cheap."""
    n_rows = n_megabytes * 1_000_000 // NBYTES_PER_ROW

    def make(folder: Path) -> None:
        connect({}).execute(
            f"""COPY (
                SELECT i * 48271 % 1000003 AS key, i % 1000 AS a, (i % 997) / 8.0::DOUBLE AS x,
                    (i % 787) / 4.0::DOUBLE AS y, (i % 499) / 2.0::DOUBLE AS z
                FROM range({n_rows}) AS r(i)
            ) TO '{folder}/rows.parquet' (FORMAT parquet, ROW_GROUP_SIZE 1000000)"""
        )

    return str(made_once(f"shuffle-{n_megabytes}", make) / "rows.parquet")


def shuffle(peer: Any, n_megabytes: int) -> Cell:
    path = shuffle_file(n_megabytes)
    yield None
    n_rows, _n_partitions = peer.shuffle(path, "key")
    yield Outcome(n_rows, n_megabytes)


FAMILY = Family(
    "versus-dask",
    (
        Row(
            "q1",
            "TPC-H query 1, scale 1",
            query_1,
            lambda tenths: [list(row) for row in rows_of(stored_answers("tpch", "1")["q01"])],
            {"": 10},
            goal="20 × Dask",
            per_task=False,
            repeats=True,
        ),
        Row(
            "shuffle",
            "hash shuffle of 1 GB between 2 workers, per MB",
            shuffle,
            lambda n_megabytes: n_megabytes * 1_000_000 // NBYTES_PER_ROW,
            {"": N_MEGABYTES},
            goal="8 × Dask P2P",
            needs=frozenset({"shuffle"}),
            headline="cpu",
        ),
    ),
    {name: Setup(mode="tables") for name in ("rasker", "rasker-workers", "dask")},
)
