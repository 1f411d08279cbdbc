"""`rasker scheduler` and `rasker worker` as a user starts them."""

from __future__ import annotations

import json

import numpy as np
import pytest

APART = {"RASKER_TRANSPORT__SHARED_MEMORY": "false"}


def workers_of(client):
    return sorted(client.scheduler_info()["workers"])


def carry(client, n=1_000_000):
    """Make an array on one worker, read it on the other, and bring it here."""
    here, there = workers_of(client)
    made = client.submit(np.arange, n, workers=[here])
    total = client.submit(np.sum, made, workers=[there])
    assert total.result(timeout=20) == n * (n - 1) // 2
    assert made.result(timeout=20)[-1] == n - 1


@pytest.mark.parametrize("apart", [False, True])
def test_values_go_between_workers_of_one_host(programs, apart):
    environment = APART if apart else {}
    programs.scheduler()
    for _ in range(2):
        programs.worker(**environment)
    with programs.client(2) as client:
        carry(client)


def test_on_all_interfaces_everything_is_hidden_and_can_be_reached(programs):
    programs.scheduler("--host", "0.0.0.0")
    for _ in range(2):
        programs.worker("--host", "0.0.0.0", **APART)
    with open(programs.file, encoding="utf-8") as stream:
        place = json.load(stream)
    assert place["address"].startswith("tls://")
    assert "0.0.0.0" not in place["address"]
    with programs.client(2) as client:
        for address in workers_of(client):
            assert address.startswith("tls://")
            assert "0.0.0.0" not in address
        carry(client)


def test_a_worker_without_tls_elsewhere_needs_the_users_word(programs):
    programs.scheduler("--host", "0.0.0.0", "--insecure")
    worker = programs.worker("--host", "0.0.0.0", "--insecure", **APART)
    with programs.client(1) as client:
        assert workers_of(client)[0].startswith("tcp://")
        assert client.submit(sum, [1, 2]).result(timeout=20) == 3
    assert "without TLS" in programs.log(worker)


def test_programs_end_in_order_when_asked(programs):
    scheduler = programs.scheduler()
    worker = programs.worker()
    with programs.client(1) as client:
        assert client.submit(sum, [1, 2]).result(timeout=20) == 3
    worker.terminate()
    assert worker.wait(10) == 0
    scheduler.terminate()
    assert scheduler.wait(10) == 0
    assert "worker ends" in programs.log(worker)


def test_a_retired_worker_hands_its_results_over(programs):
    programs.scheduler()
    for _ in range(2):
        programs.worker()
    with programs.client(2) as client:
        here, there = workers_of(client)
        made = client.submit(np.arange, 1000, workers=[here])
        made.result(timeout=20)
        assert list(client.retire_workers([here])) == [here]
        assert workers_of(client) == [there]
        assert client.who_has([made])[made.key] == (there,)
        assert made.result(timeout=20)[-1] == 999


def test_a_result_is_copied_to_every_worker(programs):
    programs.scheduler()
    for _ in range(2):
        programs.worker()
    with programs.client(2) as client:
        made = client.submit(np.arange, 1000)
        made.result(timeout=20)
        client.replicate([made])
        assert sorted(client.who_has([made])[made.key]) == workers_of(client)


def test_a_worker_that_is_terminated_leaves_its_results_behind(programs):
    programs.scheduler()
    first = programs.worker()
    with programs.client(1) as client:
        made = client.submit(np.arange, 1000)
        made.result(timeout=20)
        programs.worker()
        client.wait_for_workers(2, timeout=20)
        first.terminate()
        assert first.wait(20) == 0
        assert made.result(timeout=20)[-1] == 999
        assert len(client.who_has([made])[made.key]) == 1


def test_a_worker_without_python_leaves_python_to_others(programs):
    programs.scheduler()
    programs.worker("--no-python")
    with programs.client(1) as client:
        (alone,) = workers_of(client)
        total = client.submit(sum, [1, 2])
        mapped = client.map(abs, range(-20, 0))
        with pytest.raises(TimeoutError):
            total.result(timeout=0.5)
        programs.worker()
        client.wait_for_workers(2, timeout=20)
        assert total.result(timeout=20) == 3
        assert client.gather(mapped) == list(range(20, 0, -1))
        assert not client.has_what()[alone]
