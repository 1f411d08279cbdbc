"""What tasks can do: know their worker, submit more, leave their slot."""

from __future__ import annotations

import time

import pytest

from rasker.distributed import get_client, get_worker, rejoin, secede, worker_client


def inc(x):
    return x + 1


def fib(n):
    if n < 2:
        return n
    with worker_client() as client:
        a, b = client.map(fib, [n - 1, n - 2])
        return sum(client.gather([a, b]))


def test_a_task_can_submit_tasks(client):
    def total(n):
        with worker_client() as inner:
            return sum(inner.gather(inner.map(inc, range(n))))

    assert client.submit(total, 5, pure=False).result(timeout=20) == 15


def test_tasks_that_wait_for_tasks_do_not_fill_the_slots(client):
    assert client.submit(fib, 6, pure=False).result(timeout=60) == 8


def test_a_task_can_leave_its_slot(client):
    def work(x):
        secede()
        inner = get_client()
        found = inner.submit(inc, x, pure=False).result()
        rejoin()
        return found

    futures = client.map(work, range(8), pure=False)
    assert client.gather(futures) == list(range(1, 9))


def test_a_task_knows_its_worker(client):
    def where():
        worker = get_worker()
        return worker.address, worker.name

    address, _ = client.submit(where, pure=False).result()
    assert address in client.nthreads()


def test_a_future_can_be_given_to_a_task_that_hands_it_on(client):
    def pass_on():
        inner = get_client()
        future = inner.submit(inc, 1, pure=False)
        future.result()
        return inner.gather([future])

    assert client.submit(pass_on, pure=False).result(timeout=20) == [2]


def test_outside_of_a_task_there_is_no_worker(client):
    assert get_client() is client
    with pytest.raises(ValueError, match="inside a task"):
        get_worker()
    with pytest.raises(ValueError, match="inside a task"):
        secede()
    with pytest.raises(ValueError, match="inside a task"):
        rejoin()


def test_a_long_task_does_not_hold_up_another(client):
    long = client.submit(time.sleep, 0.3, pure=False)
    assert client.submit(inc, 1, pure=False).result(timeout=5) == 2
    long.result()
