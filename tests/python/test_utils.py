"""Units, names and the like, which packages around Dask import."""

from __future__ import annotations

import datetime
import functools
import os
import pickle

import pytest

from rasker.sizeof import sizeof
from rasker.utils import (
    M,
    SerializableLock,
    format_bytes,
    format_time,
    funcname,
    is_arraylike,
    is_dataframe_like,
    is_series_like,
    key_split,
    memory_repr,
    methodcaller,
    parse_bytes,
    parse_timedelta,
    tmpfile,
    typename,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("100", 100), ("100 MB", 10**8), ("5kB", 5000), ("5.4 kB", 5400), ("1kiB", 1024),
     ("1e6", 10**6), ("1e6 kB", 10**9), ("MB", 10**6), (123.9, 123), ("2 GiB", 2**31),
     (" 1 b", 1)],
)  # fmt: skip
def test_bytes_are_read(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["5 foos", "", "MiB5", "1.2.3 MB"])
def test_what_is_no_number_of_bytes_is_named(text):
    with pytest.raises(ValueError, match="bytes"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3s", 3), ("3.5 seconds", 3.5), ("300ms", 0.3), ("1 hour", 3600), ("2 minutes", 120),
     (5, 5), ("5", 5), (datetime.timedelta(seconds=3), 3), ("1 us", 1e-6), (None, None)],
)  # fmt: skip
def test_times_are_read(text, expected):
    assert parse_timedelta(text) == expected


def test_what_is_no_time_is_named():
    with pytest.raises(ValueError, match="'5 foos'"):
        parse_timedelta("5 foos")


def test_numbers_are_written_for_people():
    assert format_bytes(0) == "0 B"
    assert format_bytes(2**30) == "1.00 GiB"
    assert format_time(0.001) == "1.00 ms"
    assert format_time(3700 * 3) == "3hr 5m"
    assert memory_repr(512) == "512.0 bytes"


def test_functions_have_names():
    assert funcname(funcname) == "funcname"
    assert funcname(functools.partial(funcname)) == "funcname"
    assert funcname(lambda: 1) == "lambda"
    assert funcname(methodcaller("sum")) == "sum"
    assert typename(int) == "int"


@pytest.mark.parametrize(
    ("key", "expected"),
    [("x", "x"), ("x-1", "x"), ("hello-world-1", "hello-world"), (("x-2", 1), "x"),
     (b"hello-1", "hello"), (None, "Other"), ("x-abcdef12", "x"),
     ("inc-0862f19800000002", "inc"), ("0123456789abcdef0123456789abcdef", "data"),
     (("sum-aggregate-0a1b", 0, 1), "sum-aggregate"), (5, "Other")],
)  # fmt: skip
def test_keys_say_the_kind_of_their_task(key, expected):
    assert key_split(key) == expected


def test_method_callers_are_shared_and_travel():
    assert M.upper is methodcaller("upper")
    assert pickle.loads(pickle.dumps(M.upper)) is M.upper
    assert M.split("a b") == ["a", "b"]


def test_locks_of_one_token_are_one_lock():
    a, b = SerializableLock("t"), SerializableLock("t")
    with a:
        assert b.locked()
        assert not b.acquire(blocking=False)
        assert pickle.loads(pickle.dumps(a)).locked()
    assert not b.locked()
    with SerializableLock():
        assert not a.locked()


def test_temporary_files_go_away():
    with tmpfile("txt") as name:
        assert name.endswith(".txt")
        assert not os.path.exists(name)
        with open(name, "w") as f:
            f.write("x")
    assert not os.path.exists(name)


def test_likeness_is_seen():
    np = pytest.importorskip("numpy")
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1]})
    assert is_dataframe_like(frame)
    assert not is_dataframe_like(frame.a)
    assert is_series_like(frame.a)
    assert not is_series_like(frame.index)
    assert is_arraylike(np.ones(1))
    assert not is_arraylike([1])


def test_sizes_are_about_right():
    np = pytest.importorskip("numpy")
    pd = pytest.importorskip("pandas")
    assert sizeof(b"x" * 1000) == 1000
    assert sizeof(np.ones(1000)) == 8000
    assert sizeof(np.broadcast_to(np.ones(1), (1000,))) == 8
    assert 8000 < sizeof([np.ones(100)] * 10) < 9000
    assert 80_000 <= sizeof(pd.DataFrame({"a": np.ones(10_000)})) < 90_000
    assert sizeof(["x" * 100] * 10_000) > 1_000_000
