"""Lazy calls: what can be lazy, what it is named, and what it computes."""

from __future__ import annotations

import dataclasses
import pickle
from collections import OrderedDict, namedtuple

import cloudpickle
import pytest

import rasker
from rasker import delayed
from rasker.delayed import Delayed


@pytest.fixture(autouse=True)
def in_this_thread():
    with rasker.config.set(scheduler="sync"):
        yield


@delayed
def inc(x):
    return x + 1


@delayed
def add(x, y=0):
    return x + y


Pair = namedtuple("Pair", "a b")


@dataclasses.dataclass
class Point:
    x: object
    y: object = 0


def test_calls_are_lazy_until_computed():
    calls = []
    lazy = delayed(calls.append)(1)
    assert calls == []
    lazy.compute()
    assert calls == [1]


def test_calls_nest():
    assert add(inc(1), y=inc(2)).compute() == 5


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ([inc(1), 2], [2, 2]),
        ((inc(1), 2), (2, 2)),
        ({inc(1), 5}, {2, 5}),
        ({"a": inc(1), "b": [inc(2)]}, {"a": 2, "b": [3]}),
        (OrderedDict([("a", inc(1))]), OrderedDict([("a", 2)])),
        (Pair(inc(1), 2), Pair(2, 2)),
        (Point(inc(1), [inc(2)]), Point(2, [3])),
        ([{"a": (inc(1), [inc(2)])}], [{"a": (2, [3])}]),
        (slice(inc(0), inc(4)), slice(1, 5)),
        ({inc(1): "x"}, {2: "x"}),
    ],
    ids=lambda x: type(x).__name__,
)
def test_lazy_values_are_found_in_containers(container, expected):
    result = delayed(lambda x: x)(container).compute()
    assert result == expected
    assert type(result) is type(expected)


def test_iterators_are_read_once_and_kept():
    lazy = delayed(sum)(inc(i) for i in range(3))
    assert lazy.compute() == 6
    assert lazy.compute() == 6


def test_arguments_without_lazy_values_arrive_as_they_are():
    given = {"a": [1, (2, 3)], "f": (len, "abc")}
    assert delayed(lambda x: x is given)(given).compute()
    assert delayed(lambda x: x)((len, "abc")).compute() == (len, "abc")


def test_objects_can_be_lazy():
    lazy = delayed([1, 2, 3])
    assert lazy.compute() == [1, 2, 3]
    assert lazy[0].compute() == 1
    assert lazy.count(2).compute() == 1
    assert delayed({"a": inc(1)})["a"].compute() == 2
    assert delayed(1 + 2j).imag.compute() == 2.0


def test_operators_are_lazy():
    a, b = delayed(7), delayed(2)
    assert rasker.compute(a + b, a - b, a * b, a / b, a // b, a % b, a**b) == (
        9, 5, 14, 3.5, 3, 1, 49,
    )  # fmt: skip
    assert rasker.compute(1 + a, 10 - a, 2 * a, 14 / a, 15 // a, 9 % a, 2**b) == (
        8, 3, 14, 2.0, 2, 2, 4,
    )  # fmt: skip
    assert rasker.compute(-a, +a, ~a, abs(-a)) == (-7, 7, -8, 7)
    assert rasker.compute(a & b, a | b, a ^ b, a << b, a >> b, 1 | a) == (2, 7, 5, 28, 1, 7)
    assert rasker.compute(a < b, a <= 7, a > b, a >= 8, a == 7, a != 7) == (
        False, True, True, False, True, False,
    )  # fmt: skip
    assert divmod(a, b).compute() == (3, 1)


def test_lazy_functions_can_be_called():
    assert delayed(lambda n: lambda x: x + n)(5)(1).compute() == 6


def test_what_is_no_lazy_operation_raises():
    lazy = inc(1)
    with pytest.raises(TypeError, match="truth"):
        bool(lazy)
    with pytest.raises(TypeError, match="nout"):
        list(lazy)
    with pytest.raises(TypeError, match="nout"):
        len(lazy)
    with pytest.raises(TypeError, match="immutable"):
        lazy.x = 1
    with pytest.raises(TypeError, match="immutable"):
        lazy[0] = 1
    with pytest.raises(AttributeError):
        lazy._private


def test_nout_lets_a_result_be_unpacked():
    @delayed(nout=2)
    def halves(x):
        return x // 2, x - x // 2

    lazy = halves(5)
    a, b = lazy
    assert len(lazy) == 2
    assert rasker.compute(a, b) == (2, 3)
    assert list(delayed(lambda: (), nout=0)()) == []


@pytest.mark.parametrize("nout", [-1, 1.5, "2", True])
def test_a_wrong_nout_is_refused_at_once(nout):
    with pytest.raises(ValueError, match="nout"):
        delayed(lambda: 1, nout=nout)


def test_pure_calls_share_a_key_and_others_do_not():
    f = delayed(lambda x: x, pure=True)
    assert f(1).key == f(1).key
    assert f(1).key != f(2).key
    assert f(inc(1)).key != f(inc(1)).key
    assert inc(1).key != inc(1).key
    assert inc(1, pure=True).key == inc(1, pure=True).key
    with rasker.config.set({"delayed.pure": True}):
        assert inc(1).key == inc(1).key


def test_operators_and_attributes_are_pure():
    x = delayed([1, 2])
    assert x[0].key == x[0].key != x[1].key
    assert (x + x).key == (x + x).key
    assert x.real.key == x.real.key
    assert x.count(1).key != x.count(1).key


def test_keys_start_with_the_name_of_the_function():
    assert inc(1).key.startswith("inc-")
    assert delayed(len)([]).key.startswith("len-")
    assert delayed([1], name="mine").key == "mine"
    assert inc(1, dask_key_name="mine").key == "mine"


def test_equal_pure_calls_run_once():
    ran = []

    @delayed(pure=True)
    def f(x):
        ran.append(x)
        return x

    assert rasker.compute(f(1), [f(1), f(2)]) == (1, [1, 2])
    assert sorted(ran) == [1, 2]


def test_shared_work_runs_once():
    ran = []
    shared = delayed(lambda: ran.append(1) or 5)()
    assert (shared + shared + add(shared, shared)).compute() == 20
    assert ran == [1]


def test_methods_can_be_decorated():
    class Counter:
        def __init__(self, n):
            self.n = n

        @delayed
        def plus(self, x):
            return self.n + x

    assert Counter(5).plus(inc(1)).compute() == 7


def test_decorated_functions_keep_their_names():
    assert inc.__name__ == "inc"
    assert inc.__wrapped__(1) == 2


def test_delayed_of_delayed_is_the_same_object():
    lazy = inc(1)
    assert delayed(lazy) is lazy


def test_traverse_false_does_not_look_inside():
    lazy = inc(1)
    (inside,) = delayed([lazy], traverse=False).compute()
    assert inside is lazy


def test_a_delayed_survives_pickle():
    lazy = add(inc(1), [inc(2)][0])
    assert pickle.loads(cloudpickle.dumps(lazy)).compute() == 5
    assert pickle.loads(cloudpickle.dumps(lazy)).key == lazy.key


def test_deep_chains_compute():
    lazy = inc(0)
    for _ in range(100_000):
        lazy = inc(lazy)
    assert lazy.compute() == 100_001


def test_persist_keeps_the_value():
    ran = []
    lazy = delayed(lambda: ran.append(1) or (len, [1]))()
    kept = lazy.persist()
    assert isinstance(kept, Delayed)
    assert kept.key == lazy.key
    assert kept.compute() == kept.compute() == (len, [1])
    assert ran == [1]
    assert delayed(lambda x: x[1])(kept).compute() == [1]


def test_a_graph_of_ones_own_can_be_given():
    lazy = Delayed("y", {"x": 1, "y": (sum, ["x", 2])})
    assert lazy.compute() == 3
    assert inc(lazy).compute() == 4
    with pytest.raises(ValueError, match="nope"):
        Delayed("nope", {"x": 1})


def test_errors_of_tasks_are_raised_as_they_are():
    with pytest.raises(ZeroDivisionError):
        inc(delayed(lambda: 1 / 0)()).compute()


def test_annotations_reach_the_graph():
    with rasker.annotate(priority=5):
        x = inc(1)
    y = inc(x)
    noted = [layer.annotations for layer in y.dask.layers.values() if layer.annotations]
    assert noted == [{"priority": 5}]
    assert rasker.get_annotations() == {}
    with pytest.raises(TypeError, match="retries"):
        rasker.annotate(retries="many")
