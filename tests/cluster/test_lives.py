"""Programs that end by themselves: workers at the end of their life, idle schedulers, clients that
are killed; and what can be asked about tasks."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

HOLDER = """
import sys, time
from rasker.distributed import Client

client = Client(scheduler_file=sys.argv[1])
kept = client.submit(abs, -7)
kept.result(timeout=20)
endless = client.submit(time.sleep, 600)
print(kept.key, flush=True)
time.sleep(600)
"""


def until(what, within=20.0):
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def names_of(client):
    return {worker["name"] for worker in client.scheduler_info()["workers"].values()}


def test_a_client_that_was_killed_lets_go_at_once(programs):
    programs.scheduler()
    programs.worker()
    command = [sys.executable, "-c", HOLDER, programs.file]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        key = holder.stdout.readline().strip()
        with programs.client(1) as client:
            until(lambda: any(client.processing().values()))
            assert client.who_has()[key]
            killed = time.monotonic()
            holder.kill()
            until(lambda: not client.who_has() and not any(client.processing().values()))
            # Not after the five minutes for which a client that was cut off is waited for.
            assert time.monotonic() - killed < 10


def test_a_worker_retires_at_the_end_of_its_life(programs):
    programs.scheduler()
    programs.worker("--name", "stays")
    with programs.client(1) as client:
        mortal = programs.worker("--name", "mortal", "--lifetime", "3s", "--lifetime-stagger", "1s")
        client.wait_for_workers(2, timeout=20)
        made = client.submit(np.arange, 1000, workers=["mortal"], allow_other_workers=True)
        assert made.result(timeout=20)[-1] == 999
        assert mortal.wait(20) == 0
        assert names_of(client) == {"stays"}
        # What it made has moved, and was not made again.
        assert made.result(timeout=20)[-1] == 999
        story = client.story(made)
        assert [finish for _, _, finish, *_ in story].count("processing") == 1, story
    assert "its lifetime was over" in programs.log(mortal)


def test_a_worker_begins_anew_at_the_end_of_its_life(programs):
    programs.scheduler()
    worker = programs.worker("--name", "phoenix", "--lifetime", "3s", "--lifetime-restart")
    with programs.client(1) as client:
        (first,) = client.scheduler_info()["workers"]
        until(lambda: set(client.scheduler_info()["workers"]) - {first})
        assert names_of(client) == {"phoenix"}
        assert client.submit(sum, [1, 2]).result(timeout=20) == 3
        assert worker.poll() is None


def test_an_idle_scheduler_ends_and_a_busy_one_does_not(programs):
    scheduler = programs.scheduler("--idle-timeout", "2s")
    worker = programs.worker()
    with programs.client(1) as client:
        busy = client.submit(time.sleep, 4)
        busy.result(timeout=20)
        assert scheduler.poll() is None
        assert scheduler.wait(20) == 0
    assert worker.wait(20) == 0
    assert "there was no work" in programs.log(scheduler)


def test_what_happened_to_a_task_can_be_asked(programs):
    programs.scheduler()
    programs.worker()
    with programs.client(1) as client:
        (address,) = client.scheduler_info()["workers"]
        made = client.submit(abs, -1)
        made.result(timeout=20)
        stuck = client.submit(abs, -2, resources={"GPU": 1})
        story = client.story(made)
        assert [row[1:3] for row in story] == [
            ("released", "waiting"),
            ("waiting", "processing"),
            ("processing", "memory"),
        ]
        assert story[-1][4] == f"finished on {address}"
        assert abs(story[-1][5] - time.time()) < 60
        assert client.story(client.map(abs, range(10))[3])[0][0].endswith("-3")
        asked = [sys.executable, "-m", "rasker.cli"]
        found = subprocess.run(
            [*asked, "explain", stuck.key, "--scheduler-file", programs.file],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert "no worker has the names or the resources" in found.stdout, found
        found = subprocess.run(
            [*asked, "story", made.key, "--scheduler-file", programs.file],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert "processing -> memory" in found.stdout, found
