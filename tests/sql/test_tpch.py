"""The queries of TPC-H: every answer is DuckDB's."""

from __future__ import annotations

import pytest

from bench.tables.answers import checker
from bench.tables.data import tables
from bench.tables.texts import texts
from conftest import answer

TEXTS = texts("tpch")


@pytest.fixture(scope="module")
def files():
    return tables("tpch", "0.01")


@pytest.fixture(scope="module")
def check(files):
    return checker(files)


@pytest.mark.parametrize("name", TEXTS)
def test_a_query_gives_the_right_rows(name, context, files, check):
    for table, path in files.items():
        context.create_table(table, path)
    assert not check(TEXTS[name], answer(context.sql(TEXTS[name])))
