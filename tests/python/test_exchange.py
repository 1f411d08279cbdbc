"""Exchanges between Python tasks: parts that some write and others read."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from rasker import _native
from rasker.distributed import Client, KilledWorker


@pytest.fixture(scope="module", params=["processes", "threads"])
def session(request):
    """A session with two workers of one thread each."""
    processes = request.param == "processes"
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": processes}
    with Client(**options, set_as_default=False) as client:
        yield client._session


def exchange(session, write, args, read, ranges):
    futures = _native.exchange(session, write, args, read, ranges)
    return [future.result(timeout=60) for future in futures]


def writer(sizes):
    """A function that writes parts of so many numbers: the writer's and the part's."""

    def write(number):
        return _native.Parted(
            [np.full(n, 100 * number + part, "f8") for part, n in enumerate(sizes)]
        )

    return write


def test_parts_come_in_the_order_of_part_and_writer(session):
    def read(parts):
        found = [np.frombuffer(part) for part in parts]
        of_one = [(float(numbers[0]), len(numbers), len(set(numbers))) for numbers in found]
        return parts.n_writers, parts.start, parts.stop, parts.places(), of_one

    # Nothing, what travels in messages, what is mapped.
    sizes = [0, 3, 50_000]
    args = [(number,) for number in range(5)]
    ranges = [(0, 1), (1, 2), (2, 3), (0, 3)]
    answers = exchange(session, writer(sizes), args, read, ranges)
    for (start, stop), answer in zip(ranges, answers, strict=True):
        places = [(part, n) for part in range(start, stop) for n in range(5) if sizes[part]]
        of_one = [(100.0 * n + part, sizes[part], 1) for part, n in places]
        assert answer == (5, start, stop, places, of_one)


def test_parts_are_read_in_place_and_not_written_to(session):
    def read(parts):
        (view,) = parts
        return view.readonly, view.nbytes, parts[-1] == view, len(parts), parts.nbytes

    (answer,) = exchange(session, writer([20_000]), [(1,)], read, [(0, 1)])
    assert answer == (True, 160_000, True, 1, 160_000)


def test_arrow_streams_are_read_as_tables(session):
    def write(number):
        table = pa.table({"n": [number] * 1000, "s": [f"s{number}"] * 1000})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return _native.Parted([sink.getvalue()])

    def read(parts):
        return pa.concat_tables(parts.tables()).group_by("s").aggregate([("n", "sum")])

    (answer,) = exchange(session, write, [(1,), (2,)], read, [(0, 1)])
    assert sorted(answer.to_pydict()["n_sum"]) == [1000, 2000]


def test_what_was_not_written_as_parts_is_named(session):
    for write in (lambda number: b"no parts" * number, lambda number: [number] * 100_000):
        futures = _native.exchange(session, write, [(1,), (20_000,)], len, [(0, 1)])
        with pytest.raises(RuntimeError, match="0..1 cannot be read: value is not parted"):
            futures[0].result(timeout=60)
    (future,) = _native.exchange(session, writer([5]), [(1,)], len, [(1, 2)])
    with pytest.raises(RuntimeError, match="part 1 does not exist"):
        future.result(timeout=60)


def test_what_readers_and_writers_raise_is_raised(session):
    def broken(_):
        raise KeyError("no key")

    for write, read in ((broken, len), (writer([5]), broken)):
        (future,) = _native.exchange(session, write, [(1,)], read, [(0, 1)])
        with pytest.raises(KeyError, match="no key"):
            future.result(timeout=60)


def test_a_reader_that_ends_its_executor_is_given_up():
    def end(parts):
        import os

        os._exit(1 if parts.start else 0)

    options = {"n_workers": 2, "threads_per_worker": 1, "set_as_default": False}
    with Client(**options) as client:
        futures = _native.exchange(client._session, writer([9, 9]), [(1,), (2,)], end, [(1, 2)])
        with pytest.raises(KilledWorker):
            futures[0].result(timeout=60)
        again = exchange(client._session, writer([9, 9]), [(1,), (2,)], len, [(0, 2)])
        assert again == [4]


def test_an_exchange_larger_than_memory_is_read_from_disk():
    def read(parts):
        return sum(float(np.frombuffer(part).sum()) for part in parts)

    n, numbers = 24, 1 << 20
    options = {"n_workers": 2, "threads_per_worker": 1, "set_as_default": False}
    with Client(**options, memory_limit="240 MB") as client:
        args = [(number,) for number in range(n)]
        ranges = [(part, part + 1) for part in range(4)]
        sums = exchange(client._session, writer([numbers] * 4), args, read, ranges)
    expected = [sum((100 * at + part) * numbers for at in range(n)) for part in range(4)]
    assert sums == expected
