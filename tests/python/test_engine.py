"""What the extension module promises: pickles, mapped buffers, and waits that hold up nobody."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from rasker.distributed import wait


class Counted:
    """A function object that counts how often it is pickled."""

    n_pickled = 0

    def __call__(self, x):
        return x + 1

    def __reduce__(self):
        Counted.n_pickled += 1
        return Counted, ()


def test_functions_are_pickled_once(process_client):
    Counted.n_pickled = 0
    function = Counted()
    futures = [process_client.submit(function, i) for i in range(100)]
    assert process_client.gather(futures) == list(range(1, 101))
    assert process_client.gather(process_client.map(function, range(200, 300)))[-1] == 300
    assert Counted.n_pickled == 1

    # Another object is another function, even of the same class.
    assert process_client.submit(Counted(), 1, pure=False).result() == 2
    assert Counted.n_pickled == 2


def ramp(n):
    import numpy

    return numpy.arange(n, dtype="float64")


def double_in_place(array):
    array *= 2
    return array


def mapping_of(array):
    """The name of the mapping that holds the array's values."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_rest = line.split()
        first, last = (int(part, 16) for part in span.split("-"))
        if first <= address < last:
            return line
    raise AssertionError("an array outside every mapping")


def test_arrays_from_processes_are_writable(process_client):
    numpy = pytest.importorskip("numpy")
    n = 1 << 18  # 2 MiB
    future = process_client.submit(ramp, n)
    expected = numpy.arange(n, dtype="float64")

    first = future.result()
    assert first.flags.writeable
    assert "memfd" in mapping_of(first), "the values were copied out of shared memory"
    assert numpy.array_equal(first, expected)
    first[:] = -1
    assert numpy.array_equal(future.result(), expected)


def test_a_task_that_writes_to_its_input_changes_it_for_nobody_else(process_client):
    numpy = pytest.importorskip("numpy")
    n = 1 << 18
    expected = numpy.arange(n, dtype="float64")
    here, there = process_client.scatter([expected.copy(), expected.copy()], broadcast=True)
    doubled = [process_client.submit(double_in_place, x, pure=False) for x in (here, there, here)]
    for array in process_client.gather(doubled):
        assert numpy.array_equal(array, 2 * expected)
    assert numpy.array_equal(here.result(), expected)


def until_exists(path):
    while not Path(path).exists():
        time.sleep(0.001)
    return path


@pytest.mark.parametrize("way", ["result", "gather", "wait"])
def test_other_threads_run_while_one_waits(process_client, tmp_path, way):
    path = tmp_path / "made-by-another-thread"
    future = process_client.submit(until_exists, str(path), pure=False)

    def make_it():
        # The main thread waits by then; it is woken only if this thread gets to run.
        time.sleep(0.05)
        path.touch()

    thread = threading.Thread(target=make_it)
    thread.start()
    if way == "result":
        assert future.result(timeout=10) == str(path)
    elif way == "gather":
        assert process_client.gather([future]) == [str(path)]
    else:
        assert not wait([future], timeout=10).not_done
    thread.join()
