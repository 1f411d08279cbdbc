"""How answers to queries are compared: by the columns they are sorted by, then as a multiset."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from bench.tables.answers import plain, sort_columns, wrong
from bench.tables.texts import texts


def table(**columns: list[object]) -> pa.Table:
    return pa.table(columns)


RIGHT = table(a=[1, 1, 2], b=["x", "y", "z"], c=[0.5, 1.5, 2.5])


def test_rows_that_the_order_leaves_open_may_change_places() -> None:
    answer = table(a=[1, 1, 2], b=["y", "x", "z"], c=[1.5, 0.5, 2.5])
    assert wrong(answer, RIGHT, "SELECT a, b, c FROM t ORDER BY a") == ""
    assert "row 0" in wrong(answer, RIGHT, "SELECT a, b, c FROM t ORDER BY a, b LIMIT 3")


@pytest.mark.parametrize(
    "answer",
    [
        table(a=[1, 1, 2], b=["x", "y", "y"], c=[0.5, 1.5, 2.5]),
        table(a=[1, 1, 2], b=["x", "y", "z"], c=[0.5, 1.5, 2.6]),
        table(a=[1, 1, 2], b=["x", "y", None], c=[0.5, 1.5, 2.5]),
        table(a=[1, 1], b=["x", "y"], c=[0.5, 1.5]),
        table(a=[2, 1, 1], b=["z", "x", "y"], c=[2.5, 0.5, 1.5]),
    ],
)
def test_a_wrong_value_a_lost_row_and_a_lost_order_are_found(answer: pa.Table) -> None:
    assert wrong(answer, RIGHT, "SELECT * FROM t ORDER BY a")


def test_numbers_of_other_types_are_equal() -> None:
    answer = table(a=[1, 1, 2], b=["x", "y", "z"], c=[Decimal("0.5"), Decimal("1.5"), Decimal("2.5")])
    assert wrong(answer, RIGHT, "SELECT * FROM t") == ""
    assert plain(datetime.datetime(2024, 1, 2)) == plain(datetime.date(2024, 1, 2))


def test_the_columns_of_the_outermost_order_are_found() -> None:
    names = ["a", "b", "c"]
    assert sort_columns("SELECT * FROM (SELECT * FROM t ORDER BY c) AS s", names) == []
    text = "SELECT * FROM (SELECT * FROM t ORDER BY c) AS s\nORDER BY t.b DESC NULLS LAST, 1"
    assert sort_columns(text, names) == [1, 0]
    assert sort_columns("SELECT * FROM t ORDER BY a, abs(b), c", names) == [0]


@pytest.mark.parametrize(("kind", "n"), [("tpch", 22), ("tpcds", 99)])
def test_there_is_a_text_for_each_query(kind: str, n: int) -> None:
    assert list(texts(kind)) == [f"q{number:02d}" for number in range(1, n + 1)]
