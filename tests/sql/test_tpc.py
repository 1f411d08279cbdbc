"""The queries of TPC-H and TPC-DS: every answer is DuckDB's."""

from __future__ import annotations

import functools

import pytest

from bench.tables.answers import checker
from bench.tables.data import tables
from bench.tables.texts import texts
from conftest import answer

SCALE = "0.01"
TEXTS = {kind: texts(kind) for kind in ("tpch", "tpcds")}
check = functools.cache(lambda kind: checker(tables(kind, SCALE)))


@pytest.mark.parametrize("kind, name", [(kind, name) for kind in TEXTS for name in TEXTS[kind]])
def test_a_query_gives_the_right_rows(kind, name, context):
    for table, path in tables(kind, SCALE).items():
        context.create_table(table, path)
    text = TEXTS[kind][name]
    assert not check(kind)(text, answer(context.sql(text)))
