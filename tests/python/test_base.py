"""compute, persist, optimize and the collection protocol, with a collection of the user's own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from operator import add

import pytest

import rasker
from rasker import delayed
from rasker.base import (
    DaskMethodsMixin,
    clone_key,
    compute_as_if_collection,
    get_collection_names,
    get_name_from_key,
    get_scheduler,
    named_schedulers,
    replace_name_in_key,
    tokenize,
    unpack_collections,
)
from rasker.local import get_sync


class Numbers(DaskMethodsMixin):
    """A tuple of lazy numbers, as a package of others would write it."""

    def __init__(self, dsk, keys):
        self._dsk = dsk
        self._keys = keys

    def __dask_graph__(self):
        return self._dsk

    def __dask_keys__(self):
        return self._keys

    def __dask_tokenize__(self):
        return self._keys

    __dask_scheduler__ = staticmethod(get_sync)

    @staticmethod
    def __dask_optimize__(dsk, keys, **kwargs):
        Numbers.optimized.append(keys)
        return dsk

    optimized: list = []

    def __dask_postcompute__(self):
        return lambda parts, sign: tuple(sign * p for p in parts), (-1,)

    def __dask_postpersist__(self):
        return Numbers._rebuild, (self._keys,)

    @staticmethod
    def _rebuild(dsk, keys, *, rename=None):
        if rename:
            keys = [replace_name_in_key(k, rename) for k in keys]
        return Numbers(dsk, keys)


@pytest.fixture
def numbers():
    Numbers.optimized = []
    dsk = {("n", 0): 1, ("n", 1): (add, ("n", 0), 1), "unused": (add, 1, "nothing")}
    return Numbers(dsk, [("n", 0), ("n", 1)])


def test_a_collection_of_ones_own_computes(numbers):
    assert rasker.is_dask_collection(numbers)
    assert numbers.compute() == (-1, -2)
    assert rasker.compute(numbers, 5, {"x": [numbers]}) == ((-1, -2), 5, {"x": [(-1, -2)]})


def test_each_kind_of_collection_optimizes_once(numbers):
    rasker.compute(numbers, numbers, Numbers({"m": 1}, ["m"]))
    assert len(Numbers.optimized) == 1
    rasker.compute(numbers, optimize_graph=False)
    assert len(Numbers.optimized) == 1


def test_persist_gives_a_collection_of_values(numbers):
    (kept,) = rasker.persist(numbers)
    assert isinstance(kept, Numbers)
    assert dict(kept.__dask_graph__()) == {("n", 0): 1, ("n", 1): 2}
    assert kept.compute() == (-1, -2)


def test_optimize_gives_a_collection_that_computes_the_same(numbers):
    x = delayed(abs)(-1)
    a, b = rasker.optimize(numbers, x)
    assert a.compute() == (-1, -2)
    assert b.compute(scheduler="sync") == 1


def test_a_collection_can_be_an_argument_of_a_lazy_call(numbers):
    assert delayed(sum)(numbers).compute(scheduler="sync") == -3
    assert delayed(len)([numbers, 1]).compute(scheduler="sync") == 2


def test_what_is_no_collection_comes_back_as_it_is():
    given = [1, {"a": 2}]
    (found,) = rasker.compute(given)
    assert found is given
    assert rasker.compute() == ()
    assert not rasker.is_dask_collection(1)
    assert not rasker.is_dask_collection(Numbers)


def test_traverse_false_leaves_containers_alone():
    x = delayed(abs)(-1)
    (found,) = rasker.compute([x], traverse=False)
    assert found[0] is x


def test_unpack_collections_can_be_undone():
    x, y = delayed(1), delayed(2)
    found, repack = unpack_collections([x, {"a": (y, x)}, {3}], 4)
    assert len(found) == 2
    assert found[0] is x
    assert repack(["X", "Y"]) == (["X", {"a": ("Y", "X")}, {3}], 4)


def test_the_scheduler_is_keyword_then_configuration_then_preference(numbers):
    asked = []

    def mine(dsk, keys, **kwargs):
        asked.append((sorted(map(str, keys)), kwargs))
        return get_sync(dsk, keys)

    assert numbers.compute(scheduler=mine, extra=1) == (-1, -2)
    assert asked == [(["('n', 0)", "('n', 1)"], {"extra": 1})]
    with rasker.config.set(scheduler=mine):
        numbers.compute()
        numbers.compute(scheduler="sync")
    assert len(asked) == 2
    assert get_scheduler(collections=[numbers]) is get_sync
    assert get_scheduler(scheduler="Single-Threaded") is get_sync
    assert get_scheduler() is None


def test_a_scheduler_that_is_not_known_is_named():
    with pytest.raises(ValueError, match="'magic'.*threads"):
        delayed(1).compute(scheduler="magic")
    with pytest.raises(TypeError, match="int"):
        delayed(1).compute(scheduler=5)
    with pytest.raises(TypeError, match="scheduler="):
        rasker.compute(delayed(1), get=get_sync)


def test_named_schedulers_are_those_of_dask():
    assert set(named_schedulers) >= {
        "sync", "synchronous", "single-threaded", "threads", "threading", "processes",
        "multiprocessing",
    }  # fmt: skip


def test_an_executor_can_be_the_scheduler():
    with ThreadPoolExecutor(2) as executor:
        total = delayed(sum)([delayed(abs)(-i) for i in range(20)])
        assert total.compute(scheduler=executor) == 190
        with pytest.raises(ZeroDivisionError):
            delayed(lambda: 1 / 0)().compute(scheduler=executor)


def test_a_cycle_is_named():
    with pytest.raises(RuntimeError, match="'a' -> 'b' -> 'a'|'b' -> 'a' -> 'b'"):
        Numbers({"a": (abs, "b"), "b": (abs, "a")}, ["a"]).compute()


def test_compute_as_if_collection_uses_the_class(numbers):
    dsk = {"x": 1, "y": (add, "x", 1)}
    assert compute_as_if_collection(Numbers, dsk, ["y", ["x"]]) == (2, (1,))
    assert Numbers.optimized == [["y", ["x"]]]


def test_names_in_keys():
    assert get_name_from_key(("x-1", 2)) == "x-1"
    assert replace_name_in_key(("x", 1), {"x": "y"}) == ("y", 1)
    assert replace_name_in_key("z", {"x": "y"}) == "z"
    assert clone_key("inc-123", 1) == clone_key("inc-123", 1) != clone_key("inc-123", 2)
    assert clone_key(("inc-1", 5), 1)[1] == 5
    with pytest.raises(TypeError):
        get_name_from_key(1)


def test_collection_names(numbers):
    assert get_collection_names(numbers) == {"n"}
    with pytest.raises(TypeError):
        get_collection_names(1)


def test_a_collection_is_tokenized_by_its_method(numbers):
    assert tokenize(numbers) == tokenize(Numbers({}, [("n", 0), ("n", 1)]))


def test_a_text_can_be_drawn_without_graphviz(tmp_path):
    x = delayed(abs)(-1, dask_key_name="below")
    drawn = delayed(sum)([x], dask_key_name="above").visualize(
        filename=str(tmp_path / "g"), engine="text"
    )
    assert str(drawn) == "above = sum\n  below = abs"
    assert (tmp_path / "g.txt").read_text() == str(drawn)
    source = x.visualize(filename=str(tmp_path / "g.dot"))
    assert b"digraph" in source.data
