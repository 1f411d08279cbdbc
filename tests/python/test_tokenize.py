"""Tokens: equal for equal values, different for different ones, the same in every process."""

from __future__ import annotations

import dataclasses
import enum
import functools
import operator
import subprocess
import sys
import threading
from collections import OrderedDict, namedtuple

import pytest

from rasker.base import normalize_token, tokenize
from rasker.tokenize import TokenizationError


class Plain:
    def __init__(self, x):
        self.x = x

    def method(self):
        return self.x


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


class Named:
    def __init__(self, name, noise):
        self.name = name
        self.noise = noise

    def __dask_tokenize__(self):
        return ("named", self.name)


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


Pair = namedtuple("Pair", "a b")


def function(x):
    return x


def other_function(x):
    return x


def make_adder(n):
    def add(x):
        return x + n

    return add


def strict(*args, **kwargs):
    return tokenize(*args, ensure_deterministic=True, **kwargs)


DIFFERENT = [
    1,
    1.0,
    True,
    "1",
    b"1",
    None,
    (1,),
    [1],
    {1},
    frozenset({1}),
    {1: 1},
    OrderedDict([(1, 1)]),
    (1, 2),
    (2, 1),
    [[1], 2],
    [[1, 2]],
    {"a": 1},
    {"a": 2},
    {"b": 1},
    slice(1, 2),
    slice(1, 3),
    range(3),
    range(4),
    function,
    other_function,
    len,
    operator.add,
    str.upper,
    [].append,
    functools.partial(function, 1),
    functools.partial(function, 2),
    functools.partial(function, x=1),
    lambda x: x + 1,
    lambda x: x + 2,
    make_adder(1),
    make_adder(2),
    Plain(1),
    Plain(2),
    Slotted(1),
    Slotted(2),
    Plain(1).method,
    Plain(2).method,
    Plain,
    Point,
    Point(1),
    Point(2),
    Point(1, 2),
    Color.RED,
    Color.BLUE,
    Level.LOW,
    Pair(1, 2),
    Pair(1, 3),
    Named("a", 1),
    Named("b", 1),
    sys,
    1j,
    ...,
]


def test_different_values_have_different_tokens():
    tokens = [strict(x) for x in DIFFERENT]
    assert len(set(tokens)) == len(tokens)
    assert all(len(t) == 32 and int(t, 16) >= 0 for t in tokens)


@pytest.mark.parametrize("x", DIFFERENT, ids=lambda x: repr(x)[:30])
def test_a_value_has_the_same_token_twice(x):
    assert strict(x) == strict(x)


def test_equal_objects_have_equal_tokens():
    assert strict(Plain([1, 2])) == strict(Plain([1, 2]))
    assert strict(make_adder(1)) == strict(make_adder(1))
    assert strict(Point(1)) == strict(Point(1))
    assert strict(functools.partial(function, [1])) == strict(functools.partial(function, [1]))


def test_dicts_and_sets_count_without_their_order():
    assert strict({"a": 1, "b": 2}) == strict({"b": 2, "a": 1})
    assert strict({"x", "y", "z"}) == strict({"z", "y", "x"})
    assert strict({1: {2, 3}, "1": 0}) == strict({"1": 0, 1: {3, 2}})
    assert strict(a=1, b=2) == strict(b=2, a=1)


def test_positional_and_keyword_arguments_differ():
    assert strict(1) != strict(x=1)
    assert strict(1, 2) != strict((1, 2))
    assert strict({"x": 1}) != strict(x=1)


def test_a_shared_object_is_as_good_as_two_equal_ones():
    a = [1, 2]
    assert strict([a, a]) == strict([[1, 2], [1, 2]])


def test_cycles_end():
    a: list = [1]
    a.append(a)
    b: list = [1]
    b.append(b)
    assert strict(a) == strict(b)
    d: dict = {}
    d["self"] = d
    assert strict(d) != strict(a)


def test_a_method_says_what_counts():
    assert strict(Named("a", 1)) == strict(Named("a", 2))


def test_a_rule_can_be_registered_for_a_type():
    class Foreign:
        def __init__(self, x):
            self.x = x
            self.lock = threading.Lock()

    with pytest.raises(TokenizationError, match="normalize_token"):
        strict(Foreign(1))

    @normalize_token.register(Foreign)
    def rule(obj):
        return ["foreign", obj.x, {"y": (1, 2)}]

    assert strict(Foreign(1)) == strict(Foreign(1))
    assert strict(Foreign(1)) != strict(Foreign(2))


def test_what_has_no_state_gets_a_new_token_each_time():
    assert tokenize(object()) != tokenize(object())
    assert tokenize(threading.Lock()) != tokenize(threading.Lock())
    with pytest.raises(TokenizationError, match="no deterministic token"):
        strict(object())
    with pytest.raises(TokenizationError):
        strict([{"a": threading.Lock()}])


def test_the_configuration_can_ask_for_determinism():
    from rasker import config

    with config.set({"tokenize.ensure-deterministic": True}):
        with pytest.raises(TokenizationError):
            tokenize(object())
        assert len(tokenize(object(), ensure_deterministic=False)) == 32


def test_a_closure_changes_with_the_globals_it_uses():
    first = {"n": 1}
    second = {"n": 2, "attr": 5}
    code = "def f(x):\n    return x.attr + n\n"
    exec(code, first)
    exec(code, second)
    third = {"n": 1, "attr": 6}
    exec(code, third)
    assert strict(first["f"]) != strict(second["f"])
    assert strict(first["f"]) == strict(third["f"])


SCRIPT = """
import functools, sys
from rasker.base import tokenize
class A:
    def __init__(self): self.x = {"b", "a", "c"}
    def f(self): return 1
def g(x, y=A()): return lambda: (x, g, A)
print(tokenize({"x", "y", "z"}, A(), g, lambda x: g(x), functools.partial(g, 1), {"k": A}, A().f,
               ensure_deterministic=True))
"""


def test_tokens_are_the_same_in_every_process():
    found = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_numpy_arrays_count_by_value_dtype_and_shape():
    np = pytest.importorskip("numpy")
    x = np.arange(6)
    assert strict(x) == strict(np.arange(6))
    assert strict(np.arange(12)[::2]) == strict(np.arange(0, 12, 2))
    values = [
        x,
        x.astype("f8"),
        x.reshape(2, 3),
        x.reshape(3, 2),
        x + 1,
        np.array([1, "a", None], dtype=object),
        np.array([1, "b", None], dtype=object),
        np.array(["2020"], dtype="M8[D]"),
        np.array(["2020"], dtype="M8[s]"),
        np.zeros((0, 3)),
        np.zeros((3, 0)),
        np.ma.array([1, 2], mask=[0, 1]),
        np.ma.array([1, 2], mask=[1, 0]),
        np.float64(1),
        np.float32(1),
        np.dtype("f4"),
        np.sin,
        np.cos,
        np.random.default_rng(1),
        np.random.default_rng(2),
    ]
    tokens = [strict(v) for v in values]
    assert len(set(tokens)) == len(tokens)
    assert tokens == [strict(v) for v in values]


def test_memory_maps_count_by_file_and_place(tmp_path):
    np = pytest.importorskip("numpy")
    path = tmp_path / "x"
    np.arange(10.0).tofile(path)
    a = np.memmap(path, dtype="f8", mode="r")
    b = np.memmap(path, dtype="f8", mode="r")
    assert strict(a) == strict(b)
    assert strict(a[1:]) != strict(a[:-1])


def test_pandas_objects_count_by_value():
    pd = pytest.importorskip("pandas")
    values = [
        pd.DataFrame({"a": [1, 2]}),
        pd.DataFrame({"a": [1, 3]}),
        pd.DataFrame({"b": [1, 2]}),
        pd.DataFrame({"a": [1, 2]}, index=[1, 0]),
        pd.Series([1, 2]),
        pd.Series([1, 2], name="x"),
        pd.Series(["a", None]),
        pd.Series(["a", "b"]),
        pd.Index([1, 2]),
        pd.RangeIndex(2),
        pd.RangeIndex(3),
        pd.MultiIndex.from_tuples([(1, 2)]),
        pd.date_range("2020", periods=2),
        pd.date_range("2020", periods=2, tz="UTC"),
        pd.Categorical(["a", "b"]),
        pd.Categorical(["a", "b"], ordered=True),
        pd.array([1, None]),
        pd.array([1, 2]),
        pd.interval_range(0, 2),
        pd.Timestamp("2020"),
        pd.Timedelta(1, "s"),
    ]
    tokens = [strict(v) for v in values]
    assert len(set(tokens)) == len(tokens)
    assert tokens == [strict(v) for v in values]
    assert strict(values[0]) == strict(pd.DataFrame({"a": [1, 2]}))


def test_arrow_objects_count_by_what_they_show():
    pa = pytest.importorskip("pyarrow")
    assert strict(pa.array([1, 2, 3])[1:]) == strict(pa.array([2, 3]))
    values = [
        pa.table({"a": [1, 2]}),
        pa.table({"a": [1, 3]}),
        pa.table({"b": [1, 2]}),
        pa.array([1, 2]),
        pa.array([1, None]),
        pa.chunked_array([[1], [2]]),
        pa.schema([("a", pa.int64())]),
        pa.int64(),
        pa.int32(),
        pa.scalar(1),
    ]
    tokens = [strict(v) for v in values]
    assert len(set(tokens)) == len(tokens)
