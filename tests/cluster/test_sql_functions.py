"""Python functions of statements on programs of their own, of which some are killed."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rasker
from rasker import _native
from rasker.distributed import KilledWorker
from rasker.sql import Context

N_FILES, N_ROWS = 6, 30_000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("functions")
    for at in range(N_FILES):
        ids = np.arange(at * N_ROWS, (at + 1) * N_ROWS)
        table = pa.table({"id": ids, "k": ids % 40, "x": ids * 0.25})
        pq.write_table(table, folder / f"{at}.parquet")
    return folder


def known(context, files):
    def slow(column):
        import time

        time.sleep(0.02)
        return column

    context.create_table("t", f"{files}/*.parquet")
    context.create_function("slow", slow, [float], float, kind="pandas")
    spread = {"kind": "pandas", "aggregate": True}
    context.create_function("spread", lambda s: s.max() - s.min(), [float], float, **spread)
    return context


STATEMENT = "SELECT k, spread(slow(x)) AS s, count(*) AS n FROM t GROUP BY k"


def rows(table):
    return sorted(zip(*[column.to_pylist() for column in table.columns], strict=True))


def gathered(result):
    return pa.concat_tables([future.result(timeout=60) for future in result.to_futures()])


def test_a_worker_killed_within_a_statement_costs_no_row(programs, files):
    programs.scheduler()
    workers = [programs.worker() for _ in range(3)]
    with programs.client(3) as client, rasker.config.set({"sql.whole-below": 0}):
        right = rows(known(Context(False), files).sql(STATEMENT).to_arrow())
        there = known(Context(client), files)
        start = time.perf_counter()
        assert rows(gathered(there.sql(STATEMENT))) == right
        whole = time.perf_counter() - start
        for share in (0.3, 0.8):
            victim = workers.pop(0)
            kill = threading.Timer(share * whole, os.kill, (victim.pid, signal.SIGKILL))
            kill.start()
            assert rows(gathered(there.sql(STATEMENT))) == right
            kill.join()
            workers.append(programs.worker())
            client.wait_for_workers(3, timeout=20)


def test_a_function_that_ends_its_executor_is_a_killed_worker(programs, files):
    def deadly(column):
        import os

        os._exit(3)

    programs.scheduler()
    programs.worker()
    with programs.client(1) as client:
        there = known(Context(client), files)
        there.create_function("deadly", deadly, [float], float)
        with pytest.raises(KilledWorker):
            gathered(there.sql("SELECT deadly(x) FROM t"))
        assert gathered(there.sql("SELECT max(slow(x)) FROM t WHERE id < 9")).num_rows == 1


def test_an_executor_that_is_killed_once_costs_no_row(programs, files):
    programs.scheduler()
    for _ in range(2):
        programs.worker()
    with programs.client(2) as client, rasker.config.set({"sql.whole-below": 0}):
        right = rows(known(Context(False), files).sql(STATEMENT).to_arrow())
        there = known(Context(client), files)
        (victim, *_) = client.run(os.getpid).values()
        kill = threading.Timer(0.15, os.kill, (victim, signal.SIGKILL))
        kill.start()
        assert rows(gathered(there.sql(STATEMENT))) == right
        kill.join()


def test_workers_without_python_do_the_rest(programs, files):
    programs.scheduler()
    programs.worker("--no-python")
    programs.worker()
    with programs.client(2) as client, rasker.config.set({"sql.whole-below": 0}):
        right = rows(known(Context(False), files).sql(STATEMENT).to_arrow())
        there = known(Context(client), files)
        assert rows(gathered(there.sql(STATEMENT))) == right


def test_a_killed_worker_costs_readers_nothing(programs):
    def write(number):
        return _native.Parted([np.full(30_000, number * 10 + part) for part in range(6)])

    def read(parts):
        import time

        time.sleep(0.2)
        return [int(np.frombuffer(part, "i8")[-1]) for part in parts]

    programs.scheduler()
    workers = [programs.worker() for _ in range(3)]
    with programs.client(3) as client:
        args, ranges = [(n,) for n in range(12)], [(part, part + 1) for part in range(6)]
        futures = _native.exchange(client._session, write, args, read, ranges)
        kill = threading.Timer(0.5, os.kill, (workers[0].pid, signal.SIGKILL))
        kill.start()
        found = [future.result(timeout=60) for future in futures]
        kill.join()
        assert found == [[n * 10 + part for n in range(12)] for part in range(6)]
