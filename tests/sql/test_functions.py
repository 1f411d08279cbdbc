"""Python functions of statements: in this process, in executors that are processes or threads."""

from __future__ import annotations

import os
import traceback

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from conftest import answer
from rasker import config
from rasker.distributed import Client
from rasker.sql import Context, SqlError, SqlNotSupportedError

N_FILES, N_ROWS = 3, 20_000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("functions")
    for at in range(N_FILES):
        ids = range(at * N_ROWS, (at + 1) * N_ROWS)
        table = pa.table(
            {
                "id": pa.array(ids, pa.int64()),
                "k": [None if i % 17 == 0 else i % 50 for i in ids],
                "name": [f"n{i % 7}" for i in ids],
                "x": [i * 0.25 for i in ids],
            }
        )
        pq.write_table(table, folder / f"{at}.parquet")
    return folder


@pytest.fixture(scope="module")
def threads():
    """A client whose executors are threads of this process."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False}
    with Client(**options, set_as_default=False) as client:
        yield client


def known(context, files):
    """The context with tables and functions of all kinds."""
    context.create_table("t", f"{files}/*.parquet")
    context.create_table("names", {"name": [f"n{i}" for i in range(5)], "n": list(range(5))})
    context.create_function("twice", lambda x: pc.multiply(x, 2.0), [float], float)
    context.create_function("clipped", lambda s: s.clip(10, 100), [float], float, kind="pandas")
    context.create_function("label", lambda n, s: f"{s}{n}", [int, str], str, kind="rows")
    spread = {"kind": "pandas", "aggregate": True}
    context.create_function("spread", lambda s: s.max() - s.min(), [float], float, **spread)
    joined = {"kind": "rows", "aggregate": True}
    context.create_function("joined", lambda s: "".join(sorted(set(s))), [str], str, **joined)
    context.create_function("weighted", _weighted, [float, float], float, aggregate=True)
    return context


def _weighted(x, w):
    return pc.sum(pc.multiply(x, w))


_weighted.__module__ = "__main__"  # Travels by value: workers do not have this module.

STATEMENTS = [
    "SELECT id, twice(x), clipped(x) FROM t WHERE id < 500",
    "SELECT count(*) FROM t WHERE twice(x) > 9000",
    "SELECT label(id, name) FROM t WHERE label(id % 10, name) = 'n33'",
    "SELECT name, spread(x) FROM t GROUP BY name",
    "SELECT k, spread(x), joined(name), sum(id), count(DISTINCT name) FROM t GROUP BY k",
    "SELECT name, weighted(x, twice(x)) FROM t WHERE id % 3 = 0 GROUP BY name",
    "SELECT spread(x), spread(twice(x)) FROM t",
    "SELECT spread(x) FROM t WHERE id < 0",
    "SELECT label(id % 3, name) AS l, count(*) FROM t GROUP BY label(id % 3, name)",
    "SELECT name, k, spread(x) FROM t WHERE k < 4 GROUP BY ROLLUP (name, k)",
    "SELECT name, spread(x) FILTER (WHERE k < 9) FROM t GROUP BY name",
    "SELECT name, spread(DISTINCT x) FROM t WHERE id < 900 GROUP BY name",
    "SELECT name, spread(x) AS s FROM t GROUP BY name HAVING spread(x) > 10 ORDER BY twice(s)",
    "SELECT id, spread(x) OVER (PARTITION BY name) FROM t WHERE id < 900",
    "SELECT n.n, spread(x), count(*) FROM t JOIN names n USING (name) GROUP BY n.n",
    "SELECT id, label(n, t.name) FROM t LEFT JOIN names n ON t.name = label(n.n, 'n')"
    " WHERE id < 300",
    "SELECT name FROM t GROUP BY name HAVING spread(x) = (SELECT max(s) FROM"
    " (SELECT spread(x) AS s FROM t GROUP BY name))",
    "WITH a AS (SELECT k, spread(x) AS s FROM t GROUP BY k)"
    " SELECT a.k, b.s FROM a JOIN a AS b ON a.k = b.k + 1",
    "SELECT twice(x) AS y FROM t WHERE id < 20 UNION ALL SELECT x FROM t WHERE id < 5",
    "SELECT id, twice(x) FROM t ORDER BY clipped(x) DESC, id LIMIT 25",
    "SELECT id, twice(2.0) FROM t WHERE id < 3",
]


def rows(table):
    columns = [
        [round(v, 6) if isinstance(v, float) else v for v in column.to_pylist()]
        for column in table.columns
    ]
    return sorted(zip(*columns, strict=True), key=str)


@pytest.mark.parametrize("place", ["two_workers", "threads"])
def test_workers_give_the_rows_that_one_process_gives(request, files, place):
    here = known(Context(False, threads=2), files)
    there = known(Context(request.getfixturevalue(place), threads=2), files)
    for whole in (0, "64 MiB"):
        with config.set({"sql.whole-below": whole}):
            for text in STATEMENTS:
                expected = rows(here.sql(text).to_arrow())
                assert expected and rows(answer(there.sql(text))) == expected, text


def test_functions_get_all_rows_of_a_group_at_once(two_workers, files):
    there = Context(two_workers)
    there.create_table("t", f"{files}/*.parquet")
    there.create_function("n", lambda s: len(s), [float], int, kind="pandas", aggregate=True)
    with config.set({"sql.whole-below": 0}):
        counted = answer(there.sql("SELECT n(x) AS n, count(x) AS c FROM t GROUP BY name"))
    assert counted.column("n").equals(counted.column("c")) and counted.num_rows == 7


def test_functions_run_in_the_processes_of_executors(two_workers, files):
    there = Context(two_workers)
    there.create_table("t", f"{files}/*.parquet")
    there.create_function("pid", lambda ids: pa.array([os.getpid()] * len(ids)), [int], int)
    there.create_function("pid_of_all", lambda ids: os.getpid(), [int], int, aggregate=True)
    with config.set({"sql.whole-below": 0}):
        pids = {row[0] for row in there.sql("SELECT DISTINCT pid(id) FROM t").fetchall()}
        all_pids = there.sql("SELECT name, pid_of_all(id) FROM t GROUP BY name").fetchall()
    executors = set(two_workers.run(os.getpid).values())
    assert os.getpid() not in pids and pids == executors
    assert {pid for _, pid in all_pids} <= executors


def test_a_function_knows_that_it_runs_in_a_task(two_workers, files):
    def worker(ids):
        from rasker.distributed import get_worker

        return pa.array([get_worker().address] * len(ids))

    there = Context(two_workers)
    there.create_table("t", f"{files}/*.parquet")
    there.create_function("worker", worker, [int], str)
    with config.set({"sql.whole-below": 0}):
        found = there.sql("SELECT DISTINCT worker(id) FROM t").fetchall()
    assert {address for (address,) in found} == set(two_workers.scheduler_info()["workers"])


def test_what_a_function_raises_is_raised_as_it_was(context, files):
    class OwnError(Exception):
        pass

    def broken(column):
        raise OwnError("not today")

    known(context, files).create_function("broken", broken, ["int64"], "int64")
    with pytest.raises(Exception, match="not today") as caught:
        context.sql("SELECT broken(id) FROM t").to_arrow()
    assert type(caught.value).__name__ == "OwnError"
    assert caught.value.__notes__ == ["in the function broken, which a statement calls"]
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    line = broken.__code__.co_firstlineno + 1
    assert (last.name, last.lineno, last.filename) == ("broken", line, __file__)
    # What comes after it is not disturbed.
    assert context.sql("SELECT count(twice(x)) FROM t").fetchall() == [(N_FILES * N_ROWS,)]


def test_what_a_function_gives_must_fit(context, files):
    known(context, files).create_function("short", lambda a: a.slice(1), ["int64"], "int64")
    with pytest.raises(SqlError, match=r"the function short gave \d+ values for \d+ rows"):
        context.sql("SELECT short(id) FROM t").to_arrow()
    context.create_function("words", lambda a: pa.array(["x"] * len(a)), ["int64"], "int64")
    with pytest.raises(SqlError, match="the function words gave Utf8, not Int64"):
        context.sql("SELECT words(id) FROM t").to_arrow()


def test_a_function_that_cannot_be_pickled_is_named(two_workers, threads, files):
    import threading

    lock = threading.Lock()

    def locked(column):
        with lock:
            return column

    for client in (two_workers, threads):
        there = known(Context(client), files)
        there.create_function("locked", locked, [int], int)
        asked = there.sql("SELECT max(locked(id)) FROM t")
        if client is threads:
            assert asked.fetchall() == [(N_FILES * N_ROWS - 1,)]
            continue
        with pytest.raises(TypeError, match="the function locked cannot be sent to workers.*lock"):
            asked.to_arrow()


def test_a_function_that_is_replaced_leaves_plans_as_they_were(context, files):
    known(context, files)
    before = context.sql("SELECT max(twice(x)) FROM t")
    context.sql("CREATE VIEW v AS SELECT max(twice(x)) AS y FROM t")
    context.create_function("twice", lambda x: pc.multiply(x, 20.0), [float], float)
    most = (N_FILES * N_ROWS - 1) * 0.25
    assert before.fetchall() == [(2 * most,)]
    assert context.sql("SELECT max(twice(x)) FROM t").fetchall() == [(20 * most,)]
    # A view keeps the one that it was made with, also beside the other.
    assert context.sql("SELECT y FROM v").fetchall() == [(2 * most,)]
    both = context.sql("SELECT y, (SELECT max(twice(x)) FROM t) FROM v")
    assert both.fetchall() == [(2 * most, 20 * most)]
    context.create_function("twice", lambda x: 7.0, [float], float, aggregate=True)
    assert context.sql("SELECT twice(x) FROM t").fetchall() == [(7.0,)]


def test_futures_of_rows_go_on_in_tasks(two_workers, files):
    there = known(Context(two_workers), files)
    with config.set({"sql.whole-below": 0}):
        futures = there.sql("SELECT name, spread(x) AS s FROM t GROUP BY name").to_futures()
    counted = two_workers.map(lambda table: table.num_rows, futures)
    assert sum(two_workers.gather(counted)) == 7


def test_distinct_beside_other_aggregates_is_refused(context, files):
    known(context, files)
    with pytest.raises(SqlNotSupportedError, match="DISTINCT in spread beside other aggregates"):
        context.sql("SELECT spread(DISTINCT x), joined(name) FROM t").to_arrow()


def test_rows_of_functions_are_written_by_workers(context, files, tmp_path):
    known(context, files)
    context.sql(f"COPY (SELECT id, twice(x) AS y FROM t) TO '{tmp_path}/rows/' STORED AS PARQUET")
    context.sql("CREATE TABLE made AS SELECT k, spread(x) AS s FROM t GROUP BY k")
    written = context.sql(f"SELECT count(*), max(y) FROM '{tmp_path}/rows/'").fetchall()
    assert written == [(N_FILES * N_ROWS, (N_FILES * N_ROWS - 1) * 0.5)]
    assert context.sql("SELECT count(*) FROM made WHERE twice(s) > 100").fetchall() == [(51,)]
