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
