"""A short run of everything; `make chaos` is the long one."""

from __future__ import annotations

import os
import signal
import time

import pytest

from rasker.distributed import wait
from tests.chaos.attack import measure
from tests.chaos.blame import runs
from tests.chaos.cluster import Programs
from tests.chaos.jobs import JOBS, make_array, mix, total
from tests.chaos.proxy import through
from tests.chaos.run import play, run
from tests.chaos.storm import storm


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_a_job_is_right_while_workers_and_executors_are_killed(job):
    outcome = run("rasker", job, seed=7, kinds=["kill-executor", "kill-worker"])
    assert outcome.is_right, outcome


def test_a_job_is_right_while_workers_retire():
    outcome = run("rasker", JOBS[1], seed=3, kinds=["retire"], n_faults=2, pause=0.3)
    assert outcome.is_right, outcome


@pytest.fixture
def programs():
    found = Programs("rasker", n_workers=2)
    yield found
    found.end()


def test_the_work_of_a_frozen_worker_is_done_elsewhere_and_its_late_word_is_void(programs):
    with programs.connect() as client:
        here, there = client.scheduler_info()["workers"]
        n = 1_000_000
        options = {"workers": [here], "allow_other_workers": True, "pure": False}
        made = client.submit(make_array, 4, n, **options)
        wait([made], timeout=20)
        pid = client.scheduler_info()["workers"][here]["pid"]
        frozen = next(worker for worker in programs.workers if worker.pid == pid)
        os.kill(pid, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            read = client.submit(total, made, workers=[there], pure=False)
            assert read.result(timeout=60) == 5 * n * (n - 1) // 2
            took = time.monotonic() - begun
        finally:
            os.kill(pid, signal.SIGCONT)
        assert took < 20, f"a frozen worker held its value for {took:.0f} s"
        assert frozen.poll() is None
        assert play(JOBS[0], 11, client, 60) == "right"


def test_a_cable_that_is_cut_damaged_and_stopped_loses_nothing(tmp_path):
    programs = Programs("rasker", n_workers=0)
    cable = None
    try:
        file = programs.file
        programs.file = str(tmp_path / "cable.json")
        cable = through(file, programs.file)
        programs.n_workers = 2
        for _ in range(2):
            programs.add_worker()
        with programs.connect() as client:
            for fault in (cable.cut, cable.flip, lambda: cable.delay(0.02), cable.cut):
                futures = client.map(mix, range(100), pure=False)
                time.sleep(0.2)
                fault()
                assert client.gather(futures) == [mix(i) for i in range(100)]
            cable.delay(0)
            futures = client.map(mix, range(100), pure=False)
            cable.swallow(True)
            time.sleep(2)
            cable.swallow(False)
            cable.cut()
            assert client.gather(futures) == [mix(i) for i in range(100)]
    finally:
        programs.end()
        if cable is not None:
            cable.end()


def test_results_fit_the_last_submit_in_a_storm_of_cancels():
    found = storm(seconds=4)
    assert found["results"] > 50, found


def test_peers_without_the_token_are_sent_away_and_cost_little():
    found = measure(seconds=4)
    # How much slower the job is says nothing in so short a run.
    assert found["longest_open_s"] <= 10.5 and found["scheduler_grew_mib"] <= 16, found


def test_a_deadly_task_is_found_among_a_thousand_again_and_again():
    assert len(runs(2)) == 2
