"""Contexts and results as Python sees them."""

from __future__ import annotations

import datetime
import decimal
import subprocess
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rasker import sql
from rasker.sql import Context, SqlError


@pytest.fixture
def ctx():
    return Context(False, threads=2)


def test_tables_in_memory_are_asked(ctx):
    import polars as pl

    frame = pd.DataFrame({"a": [1, 2, 3], "B": ["x", None, "z"]})
    ctx.create_table("pandas", frame)
    ctx.create_table("arrow", pa.table(frame))
    ctx.create_table("polars", pl.from_pandas(frame))
    ctx.create_table("dicts", {"a": [1, 2, 3], "B": ["x", None, "z"]})
    for name in ("pandas", "arrow", "polars", "dicts"):
        assert ctx.sql(f"SELECT sum(a), count(b) FROM {name}").fetchall() == [(6, 2)]
    assert ctx.tables() == ["arrow", "dicts", "pandas", "polars"]
    ctx.drop_table("dicts")
    with pytest.raises(SqlError, match="no table dicts"):
        ctx.sql("SELECT 1 FROM dicts")


def test_results_have_many_forms(ctx):
    text = "SELECT value AS n, value * 0.5 AS half FROM generate_series(1, 3) AS t(value)"
    result = ctx.sql(text)
    assert result.columns == ["n", "half"]
    frame = result.compute()
    pd.testing.assert_frame_equal(frame, pd.DataFrame({"n": [1, 2, 3], "half": [0.5, 1.0, 1.5]}))
    assert result.to_arrow().column("n").to_pylist() == [1, 2, 3]
    assert result.to_polars()["n"].sum() == 6
    assert pa.table(result).num_rows == 3
    assert sum(batch.num_rows for batch in result) == 3
    assert result.persist().to_pylist() == result.to_pylist()
    assert "n: int64" in repr(result)
    assert "<table" in result._repr_html_()


def test_types_reach_pandas(ctx):
    result = ctx.sql(
        "SELECT DATE '2024-02-29' AS d, CAST(1.25 AS DECIMAL(10, 2)) AS x, NULL::BIGINT AS i,"
        " TIMESTAMP '2024-01-01 12:00:00' AS t"
    )
    frame = result.compute()
    assert frame.d[0] == pd.Timestamp("2024-02-29")
    assert frame.x[0] == 1.25 and frame.x.dtype == "float64"
    assert frame.t[0] == pd.Timestamp("2024-01-01 12:00")
    assert result.to_arrow().column("x")[0].as_py() == decimal.Decimal("1.25")
    assert result.compute(dtype_backend="numpy_nullable").i.dtype == pd.Int64Dtype()
    assert str(result.compute(dtype_backend="pyarrow").x.dtype) == "decimal128(10, 2)[pyarrow]"


def test_parameters_keep_their_types(ctx):
    moment = datetime.datetime(2024, 5, 6, 7, 8, 9, 10)
    values = [1, 2.5, "x", True, None, b"y", datetime.date(2024, 1, 2), moment]
    marks = ", ".join("?" for _ in values)
    assert list(ctx.sql(f"SELECT {marks}", values).fetchall()[0]) == values
    named = {"low": decimal.Decimal("1.50"), "name": "it's"}
    (row,) = ctx.sql("SELECT $low * 2 AS twice, $name AS name", named).to_pylist()
    assert (float(row["twice"]), row["name"]) == (3.0, "it's")
    with pytest.raises(TypeError, match="no SQL type"):
        ctx.sql("SELECT ?", [object()])


def test_python_functions_are_called(ctx):
    ctx.create_function("twice", lambda a: pc.multiply(a, 2), ["int64"], "int64")
    ctx.create_function("label", lambda n, s: f"{s}{n}", [int, str], str, kind="rows")
    ctx.create_function("spread", lambda s: s.max() - s.min(), [float], float, kind="pandas",
                        aggregate=True)
    ctx.create_table("t", {"g": ["a", "a", "b"], "n": [1, 4, 9]})
    assert ctx.sql("SELECT twice(n), label(n, g) FROM t ORDER BY n").fetchall() == [
        (2, "a1"),
        (8, "a4"),
        (18, "b9"),
    ]
    grouped = ctx.sql("SELECT g, spread(CAST(n AS DOUBLE)) FROM t GROUP BY g ORDER BY g")
    assert grouped.fetchall() == [("a", 3.0), ("b", 0.0)]


def test_a_python_function_that_fails_says_so(ctx):
    def broken(column):
        raise RuntimeError("not today")

    ctx.create_function("broken", broken, ["int64"], "int64")
    with pytest.raises(RuntimeError, match="not today"):
        ctx.sql("SELECT broken(1)").to_arrow()
    ctx.create_function("short", lambda a: a.slice(1), ["int64"], "int64")
    ctx.create_table("t", {"n": [1, 2, 3]})
    with pytest.raises(SqlError, match="gave 2 values for 3 rows"):
        ctx.sql("SELECT short(n) FROM t").to_arrow()


def test_rows_are_written_in_every_form(ctx, tmp_path):
    result = ctx.sql("SELECT value AS n, value % 2 AS odd FROM generate_series(1, 10) AS t(value)")
    assert result.to_parquet(tmp_path / "one.parquet") == 10
    assert result.to_csv(tmp_path / "one.csv", delimiter=";") == 10
    assert result.to_json(tmp_path / "one.json") == 10
    assert result.to_parquet(tmp_path / "parts", partition_by=["odd"]) == 10
    for name in ("one.parquet", "one.csv", "one.json", "parts"):
        counted = ctx.sql(f"SELECT sum(n), sum(odd) FROM '{tmp_path / name}'").fetchall()
        assert counted == [(55, 5)], name
    with pytest.raises(SqlError, match="holds files already"):
        result.to_parquet(tmp_path / "parts")
    assert result.to_parquet(tmp_path / "parts", partition_by=["odd"], overwrite=True) == 10
    assert ctx.sql(f"SELECT count(*) FROM '{tmp_path / 'parts'}'").fetchall() == [(10,)]


def test_query_keeps_no_tables_of_others(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,x\n2,y\n")
    assert sql.query(f"SELECT b FROM '{tmp_path}/t.csv' WHERE a = 2").fetchall() == [("y",)]
    assert Context(False).tables() == []


def rasker_sql(*arguments, text=None):
    command = [sys.executable, "-m", "rasker.cli", "sql", *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)


def test_the_program_answers(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,x\n2,y\n")
    asked = f"SELECT a, b FROM '{tmp_path}/t.csv' ORDER BY a"
    shown = rasker_sql("-c", asked)
    assert shown.returncode == 0, shown.stderr
    assert "| 1 | x |" in shown.stdout and "2 rows" in shown.stderr
    assert rasker_sql("-f", "csv", "-c", asked).stdout == "a,b\n1,x\n2,y\n"
    assert rasker_sql("-f", "json", text=asked).stdout == '{"a":1,"b":"x"}\n{"a":2,"b":"y"}\n'
    (tmp_path / "q.sql").write_text(f"CREATE VIEW v AS {asked}; SELECT count(*) AS n FROM v;")
    out = tmp_path / "out.csv"
    assert rasker_sql("-f", "csv", "-o", out, tmp_path / "q.sql").returncode == 0
    assert out.read_text() == "n\n2\n"


def test_the_program_says_what_is_wrong(tmp_path):
    failed = rasker_sql("-c", "SELECT nothing FROM nowhere")
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: there is no table nowhere")
    assert rasker_sql(tmp_path / "none.sql").returncode == 2
