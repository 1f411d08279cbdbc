"""Which airline was late, and when? The 336,776 flights that left New York in 2013.

The file is parsed in parallel pieces, joined with the names of airlines and airports, and reduced
to delays by airline and by hour: first on a cluster inside this process, then on a
scheduler and two workers started as processes of their own. `--library dask` runs the same program on Dask.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / ".data"
PIECE = 64 * 1024  # bytes


# What runs as tasks ---------------------------------------------------------------------------


def parse(start, path, length):
    """Read the flights whose lines begin in one range of bytes."""
    with open(path, "rb") as file:
        header = file.readline().decode().strip().split(",")
        if start == 0:
            start = file.tell()
            length -= start
        else:
            # A line that began before belongs to the piece before.
            file.seek(start - 1)
            skipped = len(file.readline()) - 1
            start, length = start + skipped, length - skipped
        text = file.read(max(length, 0))
        if text and not text.endswith(b"\n"):
            text += file.readline()
    names = ("carrier", "dest", "hour", "dep_delay", "arr_delay")
    columns = [header.index(name) for name in names]
    return [[row[c] for c in columns] for row in csv.reader(text.decode().splitlines())]


def names(path, key, value):
    """Read a table of codes and names."""
    with open(path, newline="") as file:
        return {row[key]: row[value] for row in csv.DictReader(file)}


def join(flights, airlines, airports):
    """Replace codes by names and text by numbers; a canceled flight has no delay."""

    def minutes(text):
        return None if text == "NA" else float(text)

    return [
        (
            airlines[carrier],
            airports.get(dest, dest),
            int(hour),
            minutes(leaving),
            minutes(arriving),
        )
        for carrier, dest, hour, leaving, arriving in flights
    ]


def delays(flights, columns):
    """Reduce to (flights, flown, late, minutes of delay) per group."""
    groups = {}
    for flight in flights:
        group = groups.setdefault(tuple(flight[c] for c in columns), [0, 0, 0, 0.0])
        arriving = flight[4]
        group[0] += 1
        if arriving is not None:
            group[1] += 1
            group[2] += arriving > 15
            group[3] += arriving
    return groups


def merge(a, b):
    """Add two reductions."""
    total = {group: list(counts) for group, counts in a.items()}
    for group, counts in b.items():
        known = total.setdefault(group, [0, 0, 0, 0.0])
        for i, count in enumerate(counts):
            known[i] += count
    return total


# What submits them ----------------------------------------------------------------------------


def tree(client, parts):
    """Merge in pairs until one is left; return it and every future on the way."""
    parts, made = list(parts), []
    while len(parts) > 1:
        pairs = list(client.map(merge, parts[0:-1:2], parts[1::2]))
        made += pairs
        parts = pairs + parts[len(pairs) * 2 :]
    return parts[0], made


def run(library, client):
    """Submit everything, show progress, return the results, the seconds and the tasks."""
    started = time.perf_counter()
    path = str(DATA / "flights.csv")
    airlines = client.submit(names, str(DATA / "airlines.csv"), "carrier", "name")
    airports = client.submit(names, str(DATA / "airports.csv"), "faa", "name")
    starts = range(0, os.path.getsize(path), PIECE)
    parsed = client.map(parse, starts, path=path, length=PIECE)
    joined = client.map(join, parsed, airlines=airlines, airports=airports)
    by_route = client.map(delays, joined, columns=(0, 1))
    by_hour = client.map(delays, joined, columns=(2,))
    routes, merged_routes = tree(client, by_route)
    hours, merged_hours = tree(client, by_hour)
    futures = [airlines, airports]
    for part in (parsed, joined, by_route, by_hour, merged_routes, merged_hours):
        futures += list(part)
    library.progress(futures, notebook=False)
    answer = client.gather([routes, hours])
    return answer, time.perf_counter() - started, len(futures)


# What shows the answer ------------------------------------------------------------------------


def table(routes, hours):
    """Airlines by their delay on the left, the hours of the day on the right."""
    airlines, worst = {}, {}
    for (airline, airport), counts in routes.items():
        airlines = merge(airlines, {airline: counts})
        n_flown, minutes = counts[1], counts[3]
        if n_flown >= 50:
            worst.setdefault(airline, []).append((minutes / n_flown, airport))

    def mean(counts):
        return counts[3] / max(counts[1], 1)

    left = [f"{'airline':<27}{'flights':>8}{'late':>6}{'delay':>7}  most delayed to"]
    for airline, counts in sorted(airlines.items(), key=lambda item: -mean(item[1])):
        late = counts[2] / max(counts[1], 1)
        airport = max(worst.get(airline, [(0, "")]))[1]
        for suffix in (" Inc.", " Co.", " Corporation"):
            airline = airline.removesuffix(suffix)
        numbers = f"{counts[0]:>8,}{late:>6.0%}{mean(counts):>7.1f}"
        left.append(f"{airline:<27}{numbers}  {airport[:20]}")
    right = [f"{'hour':>4}{'delay':>7}"]
    for (hour,), counts in sorted(hours.items()):
        if counts[1]:
            bar = "█" * round(max(mean(counts), 0) / 2)
            right.append(f"{hour:>4}{mean(counts):>7.1f} {bar}")
    height = max(len(left), len(right))
    left += [""] * (height - len(left))
    right += [""] * (height - len(right))
    return "\n".join(f"{a:<70}{b}".rstrip() for a, b in zip(left, right, strict=True))


def report(title, seconds, n_tasks):
    rate = n_tasks / seconds
    print(f"{title + ':':<33} {n_tasks:,} tasks in {seconds:.2f} s, {rate:,.0f} tasks/s", flush=True)


@contextmanager
def processes(command):
    """Start a scheduler and two workers; give the scheduler file; end them all."""
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "scheduler.json")
        log = open(os.path.join(folder, "log"), "w+")
        started = []

        def start(*arguments):
            process = subprocess.Popen([*command, *arguments], stdout=log, stderr=log)
            started.append(process)

        try:
            start("scheduler", "--port", "0", "--scheduler-file", file)
            await_file(file, started[0], log)
            for _ in range(2):
                start("worker", "--scheduler-file", file, "--nworkers", "1", "--nthreads", "1")
            yield file
        finally:
            for process in reversed(started):
                process.terminate()
            for process in reversed(started):
                process.wait(20)
            log.close()


def await_file(file, process, log):
    deadline = time.monotonic() + 20
    while not is_whole(file):
        if process.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            sys.exit(f"scheduler did not start:\n{log.read()}")
        time.sleep(0.01)


def is_whole(file):
    try:
        return bool(json.loads(Path(file).read_text()))
    except (OSError, ValueError):
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", default="rasker", choices=("rasker", "dask"))
    name = parser.parse_args().library
    if not (DATA / "flights.csv").exists():
        sys.exit("the flights are not there: run examples/fetch_flights.py first")
    library = import_module(f"{name}.distributed")

    with library.LocalCluster(n_workers=2, threads_per_worker=1) as cluster:
        with library.Client(cluster) as client:
            (routes, hours), seconds, n_tasks = run(library, client)
    n_flights = sum(counts[0] for counts in hours.values())
    print(f"\n{n_flights:,} flights left New York in 2013.", end=" ")
    print("Delay: on arrival, in minutes. Late: by more than 15.\n")
    print(table(routes, hours), end="\n\n")
    report("local cluster, 2 processes", seconds, n_tasks)

    command = os.path.join(os.path.dirname(sys.executable), name)
    with processes([command]) as file:
        with library.Client(scheduler_file=file) as client:
            client.wait_for_workers(2)
            again, seconds, n_tasks = run(library, client)
    print()
    report(f"{name} scheduler, 2 {name} workers", seconds, n_tasks)
    if list(again) != [routes, hours]:
        sys.exit("the two runs do not agree")
    print("both runs agree")


if __name__ == "__main__":
    main()
