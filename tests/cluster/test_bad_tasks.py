"""Tasks that break what they run in: whom it hits, and what their user is told."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

import pytest

from rasker.distributed import Client, KilledWorker, wait


@pytest.fixture(scope="module")
def client():
    with Client(n_workers=2, threads_per_worker=1, processes=True) as found:
        yield found


def inc(x):
    return x + 1


def segfault():
    ctypes.string_at(0)


def leave():
    print("I am off", file=sys.stderr, flush=True)
    os._exit(7)


def abort():
    os.abort()


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def overflow():
    """Recurse in C beyond the end of the stack."""
    sys.setrecursionlimit(10**9)
    nested = []
    for _ in range(10**6):
        nested = [nested]
    nested == nested + [1] or repr(nested)
    segfault()


DEADLY = [
    (segfault, "SIGSEGV"),
    (leave, "exit code 7"),
    (abort, "SIGABRT"),
    (kill, "SIGKILL"),
    (overflow, "SIGSEGV"),
]


@pytest.mark.parametrize("task, sign", DEADLY)
def test_a_deadly_task_is_named_with_the_way_it_died(client, task, sign):
    before = set(client.scheduler_info()["workers"])
    future = client.submit(task, pure=False)
    with pytest.raises(KilledWorker) as error:
        future.result(timeout=60)
    text = str(error.value)
    assert task.__name__ in text
    assert sign in text
    assert "tcp://" in text or "inproc://" in text
    assert client.submit(inc, 1, pure=False).result(timeout=20) == 2
    assert set(client.scheduler_info()["workers"]) == before


def test_the_last_words_of_a_deadly_task_are_told(client):
    with pytest.raises(KilledWorker, match="I am off"):
        client.submit(leave, pure=False).result(timeout=60)
    with pytest.raises(KilledWorker, match="segfault"):
        # The stack, as faulthandler prints it.
        client.submit(segfault, pure=False).result(timeout=60)


def nap(x):
    time.sleep(0.001)
    return x + 1


def test_one_deadly_task_among_a_thousand_hits_only_itself(client):
    innocent = client.map(nap, range(500), pure=False)
    deadly = client.submit(segfault, pure=False)
    more = client.map(nap, range(500, 1000), pure=False)
    assert client.gather(list(innocent) + list(more)) == list(range(1, 1001))
    with pytest.raises(KilledWorker):
        deadly.result(timeout=60)


def test_a_deadly_task_within_a_map_hits_only_itself(client):
    def maybe(x):
        if x == 333:
            segfault()
        return x

    futures = client.map(maybe, range(1000), pure=False)
    wait(futures, timeout=60)
    failed = [i for i, future in enumerate(futures) if future.status == "error"]
    assert failed == [333]
    assert isinstance(futures[333].exception(), KilledWorker)
    assert client.gather([f for i, f in enumerate(futures) if i != 333])[:3] == [0, 1, 2]


class OddError(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


class LockedError(Exception):
    def __init__(self):
        super().__init__("with a lock")
        self.lock = threading.Lock()


def raise_odd():
    raise OddError(1, 2)


def raise_locked():
    raise LockedError


def test_an_exception_that_cannot_be_pickled_is_told_in_words(client):
    with pytest.raises(Exception, match="1 and 2"):
        client.submit(raise_odd, pure=False).result(timeout=20)
    with pytest.raises(Exception, match="with a lock"):
        client.submit(raise_locked, pure=False).result(timeout=20)
    assert client.submit(inc, 1, pure=False).result(timeout=20) == 2


def test_a_result_that_cannot_be_pickled_says_so_when_it_is_wanted(client):
    future = client.submit(threading.Lock, pure=False)
    wait([future], timeout=20)
    with pytest.raises(TypeError, match="lock"):
        future.result(timeout=20)
    # Where it is made it can be used.
    assert client.submit(lambda lock: lock.locked(), future, pure=False).result(timeout=20) is False


class Liar:
    def __sizeof__(self):
        return -(2**70)


class Raiser:
    def __sizeof__(self):
        raise ValueError("no size")


@pytest.mark.parametrize("make", [Liar, Raiser])
def test_an_object_that_lies_about_its_size_is_a_value_like_others(client, make):
    future = client.submit(make, pure=False)
    kind = client.submit(lambda x: type(x).__name__, future, pure=False)
    assert kind.result(timeout=20) == make.__name__


def hold_the_interpreter(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return "held"


def test_a_task_that_holds_the_interpreter_holds_up_nobody_else(client):
    slow = client.submit(hold_the_interpreter, 3, pure=False)
    time.sleep(0.2)
    begun = time.monotonic()
    assert client.gather(client.map(inc, range(100), pure=False)) == list(range(1, 101))
    assert time.monotonic() - begun < 2
    assert slow.result(timeout=20) == "held"


def test_a_task_that_never_ends_can_be_cancelled(client):
    future = client.submit(time.sleep, 5, pure=False)
    time.sleep(0.2)
    future.cancel()
    assert future.cancelled()
    assert client.gather(client.map(inc, range(10), pure=False)) == list(range(1, 11))


def fork_and_wait():
    child = os.fork()
    if child == 0:
        os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork_and_fall_through():
    """Let the forked process come back from the task as well."""
    return "child" if os.fork() == 0 else "parent"


def test_a_task_may_fork(client):
    assert client.submit(fork_and_wait, pure=False).result(timeout=20) == 3
    assert client.submit(fork_and_fall_through, pure=False).result(timeout=20) == "parent"
    assert client.submit(inc, 1, pure=False).result(timeout=20) == 2


def say(kind):
    raise kind("said")


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, StopIteration, GeneratorExit])
def test_an_exception_of_any_kind_is_an_error_of_its_task(client, kind):
    with pytest.raises(BaseException, match="said") as error:
        client.submit(say, kind, pure=False).result(timeout=20)
    assert kind.__name__ in repr(error.value)
    assert client.submit(inc, 1, pure=False).result(timeout=20) == 2
