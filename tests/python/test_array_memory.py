"""Large NumPy arrays of executors live in memory that other processes can map."""

from __future__ import annotations

import os

import numpy as np
import pytest

from rasker.distributed import Client

# More than 32 MB as 64-bit numbers: smaller arrays live in the heap.
N = 4_500_000


@pytest.fixture(scope="module")
def two():
    """A client of two executor processes, and their workers' addresses."""
    with Client(n_workers=2, threads_per_worker=1, processes=True) as client:
        yield client, sorted(client.scheduler_info()["workers"])


def grown(n):
    x = np.arange(n, dtype=float)
    x.resize(2 * n, refcheck=False)
    return x


def part(x):
    return x[10:]


def start(x):
    return x[: x.size * 3 // 4]


def turned(x):
    return x.reshape(2, -1).T


def strided(x):
    return x[::2]


def same(x):
    return x


def pair(x):
    return [x, x + 1]


def frame(n):
    import pandas as pd

    return pd.DataFrame({"a": np.arange(n), "b": np.arange(n) * 0.5})


CASES = [
    (np.arange, N),
    (np.zeros, N),
    (np.ones, N),
    (grown, N),
    (frame, N),
    (np.ones, (N // 3, 3)),
    (np.empty, 0),
]


@pytest.mark.parametrize("make, argument", CASES)
def test_arrays_arrive_as_they_were(two, make, argument):
    client, (here, there) = two
    made = client.submit(make, argument, workers=[here], pure=False)
    read = client.submit(same, made, workers=[there], pure=False)
    expected = np.asarray(make(argument))
    assert np.array_equal(np.asarray(made.result()), expected)
    assert np.array_equal(np.asarray(read.result()), expected)


@pytest.mark.parametrize("view", [part, start, turned, strided, same, pair])
def test_views_of_an_array_arrive_as_they_were(two, view):
    client, (here, there) = two
    made = client.submit(np.arange, N, workers=[here], pure=False)
    seen = client.submit(view, made, workers=[here], pure=False)
    # The array itself is lent out first, then what shares its memory.
    assert client.submit(np.sum, made, workers=[there], pure=False).result() == N * (N - 1) // 2
    read = client.submit(same, seen, workers=[there], pure=False).result()
    expected = view(np.arange(N))
    if not isinstance(expected, list):
        read, expected = [read], [expected]
    assert all(map(np.array_equal, read, expected))


def test_what_arrives_can_be_written_to_and_changes_nothing_elsewhere(two):
    client, (here, _) = two
    made = client.submit(np.arange, N, workers=[here], pure=False)
    mine = made.result()
    mine[:] = -1
    assert made.result()[7] == 7
    assert client.submit(np.sum, made, workers=[here], pure=False).result() == N * (N - 1) // 2


def test_memory_is_used_again_only_when_its_readers_are_done(two):
    client, (here, _) = two
    kept = [
        client.submit(np.full, N, i, workers=[here], pure=False).result() for i in range(8)
    ]
    # Futures are gone, so the executors have let all of them go.
    client.gather([client.submit(np.full, N, -1, workers=[here], pure=False) for _ in range(8)])
    assert all((x == i).all() for i, x in enumerate(kept))


def shared_memory_mapped():
    """Addresses of NumPy arrays of this executor that lie in its shared memory."""
    x = np.ones(N)
    address = x.__array_interface__["data"][0]
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            low, high = (int(end, 16) for end in line.split()[0].split("-"))
            if low <= address < high:
                return "rasker-arena" in line
    return False


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="this system has no /proc")
def test_arrays_are_born_in_shared_memory(two):
    client, (here, _) = two
    client.submit(np.ones, 3, workers=[here], pure=False).result()
    assert client.submit(shared_memory_mapped, workers=[here], pure=False).result()


def forked(x):
    """The sum that a forked process sees after its parent has changed its array."""
    read, write = os.pipe()
    answer_read, answer_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(read, 1)
        seen = float(x.sum())
        x[:] = 7
        os.write(answer_write, str(seen).encode())
        os._exit(0)
    y = x.copy()
    x[:] = 3
    os.write(write, b"x")
    os.waitpid(child, 0)
    unchanged = bool((x == 3).all())
    x[:] = y
    return float(os.read(answer_read, 100)), unchanged


def fork_with_array():
    return forked(np.ones(N))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_task_that_forks_has_its_arrays_to_itself(two):
    client, (here, _) = two
    assert client.submit(fork_with_array, workers=[here], pure=False).result() == (N, True)
    made = client.submit(np.ones, N, workers=[here], pure=False)
    assert client.submit(np.sum, made, workers=[here], pure=False).result() == N


def subprocess_answer():
    import subprocess
    import sys

    x = np.ones(N)
    done = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True)
    return done.stdout.strip(), float(x.sum())


def test_a_task_that_runs_a_program_is_left_alone(two):
    client, (here, _) = two
    assert client.submit(subprocess_answer, workers=[here], pure=False).result() == ("42", N)
