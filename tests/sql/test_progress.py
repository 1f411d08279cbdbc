"""How far statements have come: for whoever watches, and on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading

import pyarrow as pa
import pyarrow.parquet as pq

from rasker.sql import Context
from rasker.sql.progress import watching


def test_rows_read_and_tasks_that_ended_are_told(context, tmp_path):
    for at in range(2):
        pq.write_table(pa.table({"x": list(range(35_000))}), tmp_path / f"{at}.parquet")
    context.create_table("t", f"{tmp_path}/*.parquet")
    assert context.sql("SELECT count(*) FROM t").fetchall() == [(70_000,)]
    with watching() as watch:
        assert watch.text() == ""
        assert context.sql("SELECT sum(x) FROM t").fetchall() == [(1_224_965_000,)]
        said = watch.text()
    if context._client is False:
        assert said == "70,000 rows read"
    else:
        n_ended, _, n_tasks, word = said.split()
        assert n_ended == n_tasks and int(n_tasks) > 1 and word == "tasks"


def test_tasks_that_have_not_ended_are_told_apart(two_workers, tmp_path):
    began, go_on = threading.Event(), tmp_path / "go-on"

    def slow(values):
        import os
        import time

        while not os.path.exists(go_on):
            time.sleep(0.01)
        return values

    there = Context(two_workers)
    there.create_table("t", {"x": [1.0, 2.0]})
    there.create_function("slow", slow, [float], float)
    found = []
    with watching() as watch:
        result = there.sql("SELECT sum(slow(x)) FROM t")
        runner = threading.Thread(target=lambda: found.extend(result.fetchall()))
        runner.start()
        while not (said := watch.text()):
            began.wait(0.01)
        assert said.startswith("0 of ")
        go_on.touch()
        runner.join()
        n_ended, _, n_tasks, _ = watch.text().split()
    assert found == [(3.0,)] and n_ended == n_tasks


def test_the_program_tells_on_a_terminal_how_far_it_has_come():
    # A second or more of work, however fast the machine.
    text = "SELECT count(*) FROM range(40000) a, range(40000) b WHERE (a.value + b.value) % 7 = 3"
    command = [sys.executable, "-m", "rasker.cli", "sql", "-f", "csv", "-c", text]
    ours, theirs = pty.openpty()
    said = b""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs) as program:
        os.close(theirs)
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:
                break
            if not piece:
                break
            said += piece
        answer = program.stdout.read().decode().split()
    os.close(ours)
    assert program.returncode == 0 and len(answer) == 2
    lines = [line.strip() for line in said.decode().split("\r")]
    assert "rows read" in lines[1], lines
