"""The collection protocol, both ways, against the other implementation of it."""

from __future__ import annotations

import warnings

import pytest

import rasker
from rasker import delayed

dask = pytest.importorskip("dask")


@pytest.fixture(autouse=True)
def in_this_thread():
    with rasker.config.set(scheduler="sync"), dask.config.set(scheduler="sync"):
        yield


def inc(x, by=1):
    return x + by


def ours():
    f = delayed(inc)
    return delayed(sum)([f(1), {"a": f(f(1), by=2)}["a"], 10])  # 2 + 4 + 10


def theirs():
    f = dask.delayed(inc)
    return dask.delayed(sum)([f(1), f(f(1), by=2), 10])


def test_ours_run_there():
    assert dask.is_dask_collection(ours())
    assert dask.compute(ours()) == (16,)
    assert dask.compute({"a": [ours(), 1]}, ours()) == ({"a": [16, 1]}, 16)


def test_theirs_run_here():
    assert rasker.is_dask_collection(theirs())
    assert rasker.compute(theirs()) == (16,)
    assert rasker.compute({"a": [theirs(), 1]}, ours()) == ({"a": [16, 1]}, 16)


def test_ours_persist_and_optimize_there():
    (kept,) = dask.persist(ours())
    assert kept.compute() == 16
    assert dask.compute(kept) == (16,)
    (better,) = dask.optimize(ours())
    assert dask.compute(better) == (16,)


def test_theirs_persist_and_optimize_here():
    (kept,) = rasker.persist(theirs())
    assert dask.compute(kept) == rasker.compute(kept) == (16,)
    (better,) = rasker.optimize(theirs())
    assert dask.compute(better) == rasker.compute(better) == (16,)


def test_each_can_be_an_argument_of_the_other():
    assert delayed(inc)(theirs()).compute() == 17
    assert dask.delayed(inc)(ours()).compute() == 17
    assert delayed(sum)([theirs(), ours()]).compute() == 32
    assert dask.delayed(sum)([theirs(), ours()]).compute() == 32


@pytest.mark.parametrize(
    "value", [(len, "abc"), [1, [2]], {"a": (1,)}, {1, 2}, "x", None, slice(1), [len, (len,)]]
)
def test_values_arrive_there_as_they_are(value):
    same = delayed(lambda x, y=None: (x, y))
    assert dask.compute(same(value, y=value)) == ((value, value),)
    assert dask.compute(delayed(value)) == (value,)
    (kept,) = rasker.persist(same(value))
    assert dask.compute(kept) == ((value, None),)


def test_a_text_that_is_also_a_key_stays_a_text():
    x = delayed(inc)(1, dask_key_name="x")
    both = delayed(lambda a, b: (a, b))(x, "x")
    assert dask.compute(both) == rasker.compute(both) == ((2, "x"),)


def test_their_bags_run_here():
    db = pytest.importorskip("dask.bag")
    bag = db.range(20, npartitions=4).map(inc).filter(lambda x: x % 2)
    assert rasker.compute(bag, bag.sum()) == ([1, 3, 5, 7, 9, 11, 13, 15, 17, 19], 100)
    (kept,) = rasker.persist(bag)
    assert dask.compute(kept.sum()) == rasker.compute(kept.sum()) == (100,)


def test_their_arrays_run_here():
    np = pytest.importorskip("numpy")
    da = pytest.importorskip("dask.array")
    x = da.arange(24, chunks=5).reshape(4, 6)
    y = (x + x.T.T)[1:, ::2].rechunk((2, 2))
    expected = (np.arange(24).reshape(4, 6) * 2)[1:, ::2]
    found, total = rasker.compute(y, y.sum())
    assert (found == expected).all()
    assert total == expected.sum()
    (kept,) = rasker.persist(y)
    assert (kept.compute() == expected).all()
    assert (delayed(lambda a: a + 1)(y).compute() == expected + 1).all()


def test_their_frames_run_here():
    pd = pytest.importorskip("pandas")
    dd = pytest.importorskip("dask.dataframe")
    frame = pd.DataFrame({"a": [1, 2, 1, 2], "b": [1.0, 2.0, 3.0, 4.0]})
    lazy = dd.from_pandas(frame, npartitions=2)
    (found,) = rasker.compute(lazy.groupby("a").b.sum())
    assert found.to_dict() == {1: 4.0, 2: 6.0}


def test_graph_manipulation_runs_there():
    from rasker.graph_manipulation import bind, checkpoint, clone, wait_on

    x = ours()
    for made in (bind(x, delayed(inc)(1)), clone(x), wait_on(x)):
        assert made.key != x.key
        assert dask.compute(made) == rasker.compute(made) == (16,)
    assert dask.compute(checkpoint(x)) == (None,)
    (a, b) = wait_on(x, theirs())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert rasker.compute(a, b) == (16, 16)


def test_annotations_of_theirs_are_seen_here():
    from rasker.lowering import layer_annotations

    da = pytest.importorskip("dask.array")
    with dask.annotate(priority=7):
        x = da.ones(4, chunks=2)
    found = layer_annotations(x.dask)
    assert found == {(x.name, 0): {"priority": 7}, (x.name, 1): {"priority": 7}}
