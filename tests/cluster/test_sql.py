"""SQL on programs of their own: without Python executors, and with workers that are killed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent.parent))

from bench.tables.data import tables
from bench.tables.texts import texts

import rasker
import rasker.sql
from rasker.sql import Context

TEXTS = texts("tpch")


@pytest.fixture(scope="module")
def files():
    return tables("tpch", "0.1")


def contexts(client, files):
    """One that asks this process, one that asks the cluster."""
    found = Context(False), Context(client)
    for context in found:
        for table, path in files.items():
            context.create_table(table, path)
    return found


def rows(table):
    """All rows as text, in an order of their own; sums differ in the last digits."""
    columns = [
        [str(round(v, 6)) if isinstance(v, float) else str(v) for v in column.to_pylist()]
        for column in table.columns
    ]
    return sorted(zip(*columns, strict=True))


def gathered(result):
    import pyarrow as pa

    return pa.concat_tables([future.result(timeout=60) for future in result.to_futures()])


def test_workers_without_python_answer_queries(programs, files):
    programs.scheduler()
    for _ in range(2):
        programs.worker("--no-python")
    with programs.client(2) as client, rasker.config.set({"sql.whole-below": 0}):
        here, there = contexts(client, files)
        for name in ("q01", "q03", "q18"):
            assert rows(gathered(there.sql(TEXTS[name]))) == rows(here.sql(TEXTS[name]).to_arrow())


def test_both_workers_write_to_exchanges(programs, files):
    programs.scheduler()
    for _ in range(2):
        programs.worker()
    with programs.client(2) as client, rasker.config.set({"sql.whole-below": 0}):
        _, there = contexts(client, files)
        kept = there.sql(TEXTS["q09"]).to_futures()
        held = set()
        while not all(future.done() for future in kept):
            held |= {worker for worker, keys in client.has_what().items() if keys}
        assert len(held) == 2, held


@pytest.mark.parametrize("name", ["q09", "q18", "q21"])
def test_a_killed_worker_costs_no_row(programs, files, name):
    programs.scheduler()
    workers = [programs.worker() for _ in range(3)]
    with programs.client(3) as client, rasker.config.set({"sql.whole-below": 0}):
        here, there = contexts(client, files)
        right = rows(here.sql(TEXTS[name]).to_arrow())
        start = time.perf_counter()
        assert rows(gathered(there.sql(TEXTS[name]))) == right
        whole = time.perf_counter() - start
        for share in (0.3, 0.7):
            victim = workers.pop(0)
            kill = threading.Timer(share * whole, os.kill, (victim.pid, signal.SIGKILL))
            kill.start()
            assert rows(gathered(there.sql(TEXTS[name]))) == right
            kill.join()
            workers.append(programs.worker())
            client.wait_for_workers(3, timeout=20)


def test_a_fault_in_a_fragment_is_the_query_s(programs, files):
    programs.scheduler()
    programs.worker()
    with programs.client(1) as client:
        _, there = contexts(client, files)
        with pytest.raises(rasker.sql.SqlError, match="Cannot cast"):
            there.sql("SELECT CAST(o_comment AS INT) FROM orders").to_arrow()
        assert there.sql("SELECT count(*) AS n FROM orders").to_pylist() == [{"n": 150_000}]


def test_workers_write_files(programs, files, tmp_path):
    import pyarrow.parquet as pq

    programs.scheduler()
    for _ in range(2):
        programs.worker("--no-python")
    with programs.client(2) as client, rasker.config.set({"sql.whole-below": 0}):
        here, there = contexts(client, files)
        target = tmp_path / "orders"
        query = "SELECT o_orderkey, max(o_totalprice) AS price FROM orders GROUP BY o_orderkey"
        n_rows = there.sql(query).to_parquet(target)
        assert n_rows == len(here.sql(query)) == pq.read_table(target).num_rows
        # Each task has written a file, named in the order of the tasks; nothing else is left.
        names = sorted(os.listdir(target))
        assert [name[:6] for name in names] == ["00000_", "00001_"], names

        there.sql(f"CREATE EXTERNAL TABLE copied STORED AS PARQUET LOCATION '{target}/'")
        there.sql("INSERT INTO copied SELECT 1, 2.5")
        assert there.sql("SELECT count(*) AS n FROM copied").to_pylist() == [{"n": n_rows + 1}]
        there.sql("CREATE TABLE sums AS SELECT o_orderstatus AS s FROM orders GROUP BY 1")
        assert there.sql("SELECT count(*) AS n FROM sums").to_pylist() == [{"n": 3}]


def test_workers_put_rows_into_order_together(programs, files, tmp_path):
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    programs.scheduler()
    victims = [programs.worker("--no-python") for _ in range(3)]
    everywhere = {"sql.whole-below": 0, "sql.range-above": 0}
    with programs.client(3) as client, rasker.config.set(everywhere):
        here, there = contexts(client, files)
        query = "SELECT * FROM orders ORDER BY o_totalprice DESC, o_orderkey"
        assert "RangeStep" in there.sql(query).explain()
        expected = here.sql(query).to_arrow()
        assert there.sql(query).to_arrow().equals(expected)
        pieces = [future.result() for future in there.sql(query).to_futures()]
        assert len(pieces) > 1 and pa.concat_tables(pieces).num_rows == expected.num_rows
        assert max(piece.num_rows for piece in pieces) < 0.6 * expected.num_rows
        for moment in 0.02, 0.1:
            killing = threading.Timer(moment, os.kill, (victims.pop().pid, signal.SIGKILL))
            killing.start()
            assert there.sql(query).to_arrow().equals(expected)
            killing.join()
        there.sql("SELECT o_orderkey AS k FROM orders ORDER BY k DESC").to_parquet(tmp_path / "k")
        names = sorted(os.listdir(tmp_path / "k"))
        keys = pa.concat_tables([pq.read_table(tmp_path / "k" / name) for name in names])["k"]
        assert len(keys) == len(expected)
        assert keys.equals(keys.take(pc.sort_indices(keys, sort_keys=[("", "descending")])))


def test_a_write_that_fails_on_workers_leaves_nothing(programs, files, tmp_path):
    programs.scheduler()
    for _ in range(2):
        programs.worker("--no-python")
    with programs.client(2) as client, rasker.config.set({"sql.whole-below": 0}):
        _, there = contexts(client, files)
        target = tmp_path / "lost"
        # The last row of all does not divide.
        query = "SELECT 1 / (o_orderkey - (SELECT max(o_orderkey) FROM orders)) FROM orders"
        with pytest.raises(rasker.exceptions.SqlError, match="[Dd]ivi"):
            there.sql(query).to_csv(target)
        assert not target.exists() or os.listdir(target) == []


@pytest.mark.parametrize("moment", [0.05, 0.15, 0.3])
def test_a_worker_killed_while_it_writes_leaves_each_row_once(programs, files, tmp_path, moment):
    import pyarrow.parquet as pq

    programs.scheduler()
    victims = [programs.worker("--no-python") for _ in range(3)]
    with programs.client(3) as client, rasker.config.set({"sql.whole-below": 0}):
        _, there = contexts(client, files)
        killing = threading.Timer(moment, os.kill, (victims[0].pid, signal.SIGKILL))
        killing.start()
        query = (
            "SELECT l_orderkey, l_linenumber, max(l_comment) AS comment FROM lineitem GROUP BY 1, 2"
        )
        n_rows = there.sql(query).to_parquet(tmp_path / "all")
        killing.join()
        written = pq.read_table(tmp_path / "all", columns=["l_orderkey", "l_linenumber"])
        assert written.num_rows == n_rows
        assert len(set(zip(*[c.to_pylist() for c in written.columns], strict=True))) == n_rows


def test_tables_in_memory_are_brought_to_workers_once(programs):
    import numpy as np
    import pandas as pd

    programs.scheduler()
    for _ in range(2):
        programs.worker("--no-python")
    frame = pd.DataFrame({"k": np.arange(400_000) % 1000, "v": np.arange(400_000) * 0.5})
    query = "SELECT k, count(*) AS n, sum(v) AS v FROM t GROUP BY k"
    with programs.client(2) as client, rasker.config.set({"sql.whole-below": 0}):
        here, there = Context(False), Context(client)
        for context in (here, there):
            context.create_table("t", frame)
        right = rows(here.sql(query).to_arrow())
        assert rows(there.sql(query).to_arrow()) == right
        held = {key for keys in client.has_what().values() for key in keys}
        assert held, "workers hold the table"
        assert rows(there.sql(query).to_arrow()) == right
        assert {key for keys in client.has_what().values() for key in keys} == held
        # Another table of that name is another table.
        there.create_table("t", frame[:10])
        assert len(there.sql(query)) == 10
        there.create_table("t", frame)
        assert rows(there.sql(query).to_arrow()) == right


def test_tables_in_memory_outlive_the_workers_that_held_them(programs):
    import numpy as np
    import pandas as pd

    programs.scheduler()
    workers = [programs.worker("--no-python") for _ in range(2)]
    frame = pd.DataFrame({"k": np.arange(400_000) % 10, "v": np.arange(400_000)})
    query = "SELECT k, sum(v) AS v FROM t GROUP BY k"
    with programs.client(2) as client, rasker.config.set({"sql.whole-below": 0}):
        there = Context(client)
        there.create_table("t", frame)
        right = rows(there.sql(query).to_arrow())
        for worker in workers:
            worker.kill()
        for _ in range(2):
            programs.worker("--no-python")
        assert rows(there.sql(query).to_arrow()) == right
