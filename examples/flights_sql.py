"""The same flights asked in SQL: within this process, then by a scheduler and two workers.

The CSV file is read where it lies; no table is loaded first. `NA` is what the file writes for a
flight that was canceled.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager

import pyarrow as pa
from flights import DATA, processes

import rasker
from rasker.distributed import Client
from rasker.sql import Context

AIRLINES = """
    SELECT replace(replace(a.name, ' Inc.', ''), ' Co.', '') AS airline,
           count(*) AS flights,
           round(avg(CASE WHEN arr_delay > 15 THEN 100.0 ELSE 0.0 END), 1) AS late_percent,
           round(avg(arr_delay), 1) AS delay
    FROM flights f JOIN airlines a USING (carrier)
    GROUP BY a.name
    ORDER BY delay DESC
    LIMIT 8
"""

WORST = """
    SELECT airline, airport, round(delay, 1) AS delay
    FROM (
        SELECT a.name AS airline, p.name AS airport, avg(arr_delay) AS delay,
               row_number() OVER (PARTITION BY a.name ORDER BY avg(arr_delay) DESC) AS place
        FROM flights f
        JOIN airlines a USING (carrier)
        JOIN airports p ON f.dest = p.faa
        GROUP BY a.name, p.name
        HAVING count(arr_delay) >= 50
    )
    WHERE place = 1
    ORDER BY delay DESC
    LIMIT 5
"""

HOURS = """
    SELECT hour, avg(arr_delay) AS delay FROM flights
    GROUP BY hour HAVING count(arr_delay) > 0 ORDER BY hour
"""


def create_tables(context):
    for name in ("flights", "airlines", "airports"):
        context.create_table(name, DATA / f"{name}.csv", null_values="NA")


def ask(context):
    """All answers, and the seconds they took."""
    started = time.perf_counter()
    answers = [context.sql(text).to_arrow() for text in (AIRLINES, WORST, HOURS)]
    return answers, time.perf_counter() - started


@contextmanager
def cluster():
    """A client of a scheduler and two workers without Python: queries need none."""
    command = os.path.join(os.path.dirname(sys.executable), "rasker")
    with processes([command]) as file, Client(scheduler_file=file) as client:
        client.wait_for_workers(2)
        # The file is small; what is small is otherwise answered by one task.
        with rasker.config.set({"sql.whole-below": 0}):
            yield client


def show(table: pa.Table) -> None:
    from rasker import _native

    print("\n".join(_native.Texts(table, "table")), end="\n\n")


def same(a: pa.Table, b: pa.Table) -> bool:
    """Sums of floats differ in the last digits, as their order does."""
    rounded = [
        [round(value, 6) if isinstance(value, float) else value for value in column.to_pylist()]
        for table in (a, b)
        for column in table.columns
    ]
    return rounded[: a.num_columns] == rounded[a.num_columns :]


def main() -> None:
    if not (DATA / "flights.csv").exists():
        sys.exit("the flights are not there: run examples/fetch_flights.py first")
    here = Context(client=False)
    create_tables(here)
    answers, seconds = ask(here)
    airlines, worst, _ = answers
    show(airlines)
    show(worst)
    print(f"{'3 queries over the CSV file here:':<33} {seconds:.2f} s", flush=True)
    with cluster() as client:
        there = Context(client)
        create_tables(there)
        again, seconds = ask(there)
    print(f"{'on a scheduler and 2 workers:':<33} {seconds:.2f} s")
    if not all(map(same, answers, again)):
        sys.exit("the two runs do not agree")
    print("both runs agree")


if __name__ == "__main__":
    main()
