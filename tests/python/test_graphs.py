"""Graphs as dicts and in layers: culling, fusing, ordering, and the callbacks of local schedulers."""

from __future__ import annotations

import io
import pickle
import random
from operator import add, mul

import pytest

import rasker
from rasker import delayed
from rasker.callbacks import Callback
from rasker.core import flatten, get_dependencies, getcycle, istask, quote, subs, toposort
from rasker.diagnostics import Profiler, ProgressBar, ResourceProfiler
from rasker.graph_manipulation import bind, checkpoint, clone, wait_on
from rasker.highlevelgraph import HighLevelGraph
from rasker.local import get_sync
from rasker.optimization import cull, fuse, inline, inline_functions
from rasker.order import order
from rasker.task_spec import Alias, DataNode, Dict, List, Task, TaskRef, execute_graph


def inc(x):
    return x + 1


def random_graph(seed, n=60):
    rng = random.Random(seed)
    dsk = {}
    for i in range(n):
        inputs = rng.sample(range(i), min(i, rng.randrange(4)))
        dsk[f"k{i}"] = (sum, [f"k{j}" for j in inputs] + [i])
    return dsk


def values_of(dsk):
    return {k: get_sync(dsk, k) for k in dsk}


def test_task_tuples_may_nest():
    dsk = {"x": 1, "y": (add, "x", (mul, (inc, "x"), 5)), "z": (sum, ["y", (inc, "y"), 1])}
    assert get_sync(dsk, ["z", ["y"]]) == (24, (11,))


def test_keys_may_be_of_any_kind():
    dsk = {("a", 0): 1, ("a", 1): (inc, ("a", 0)), 5: (inc, ("a", 1)), "alias": 5, b"b": 7}
    assert get_sync(dsk, [5, "alias", b"b"]) == (3, 3, 7)


def test_task_objects_run_beside_task_tuples():
    dsk = {
        "a": DataNode("a", (len, "quoted")),
        "b": Task("b", lambda x, y=0: (x[1], y), TaskRef("a"), y=List(TaskRef("c"), 2)),
        "c": (inc, 1),
        "d": Alias("d", "b"),
        "e": Task("e", dict, Dict({"k": TaskRef("c")})),
    }
    assert get_sync(dsk, ["d", "e"]) == (("quoted", [2, 2]), {"k": 2})


def test_task_objects_can_be_called_and_travel():
    t = Task("z", add, TaskRef("x"), Task(None, inc, TaskRef("y")))
    assert t.dependencies == {"x", "y"}
    assert t({"x": 1, "y": 2}) == 4
    again = pickle.loads(pickle.dumps(t))
    assert again == t
    assert again({"x": 1, "y": 2}) == 4
    renamed = t.substitute({"x": "w"}, key="new")
    assert (renamed.key, renamed.dependencies) == ("new", {"w", "y"})
    graph = {"x": DataNode("x", 1), "y": DataNode("y", 5), "z": t}
    assert execute_graph(graph, keys=["z"]) == {"z": 7}


def test_values_are_let_go_when_nobody_needs_them():
    class Value:
        alive = 0

        def __init__(self, *below):
            Value.alive += 1
            Value.most = max(Value.most, Value.alive)

        def __del__(self):
            Value.alive -= 1

        most = 0

    dsk = {0: (Value,)}
    for i in range(1, 50):
        dsk[i] = (Value, i - 1)
    get_sync(dsk, 49)
    assert Value.most == 2


def test_a_missing_key_is_named():
    with pytest.raises(KeyError, match="nope"):
        get_sync({"x": 1}, "nope")


def test_core_functions():
    dsk = {"x": 1, "y": (inc, "x"), "z": (sum, ["x", (add, "y", 1)])}
    assert get_dependencies(dsk, "z") == {"x", "y"}
    assert toposort(dsk) == ["x", "y", "z"]
    assert istask((inc, 1))
    assert not istask([inc, 1])
    assert list(flatten([["a", ["b"]], ("c", 0)])) == ["a", "b", ("c", 0)]
    assert subs((sum, ["x", 1]), "x", "w") == (sum, ["w", 1])
    assert get_sync({"x": quote((inc, 1))}, "x") == (inc, 1)
    assert getcycle({"a": (inc, "b"), "b": (inc, "a")}, "a") in (["a", "b", "a"], ["b", "a", "b"])


@pytest.mark.parametrize("seed", range(10))
def test_rewriting_does_not_change_values(seed):
    dsk = random_graph(seed)
    expected = values_of(dsk)
    wanted = [k for i, k in enumerate(dsk) if i % 7 == 0]
    culled, deps = cull(dsk, wanted)
    for rewritten in (
        culled,
        fuse(culled, wanted, deps)[0],
        inline(culled, wanted[:2]),
        inline_functions(culled, wanted, [sum]),
        HighLevelGraph({"a": dsk}, {"a": set()}).cull(wanted),
    ):
        assert get_sync(rewritten, wanted) == tuple(expected[k] for k in wanted)


@pytest.mark.parametrize("seed", range(20))
def test_order_numbers_each_task_after_what_it_needs(seed):
    dsk = random_graph(seed)
    numbers = order(dsk)
    assert sorted(numbers.values()) == list(range(len(dsk)))
    for k in dsk:
        assert all(numbers[d] < numbers[k] for d in get_dependencies(dsk, k))


def most_alive(dsk, numbers):
    left = {k: 0 for k in dsk}
    for k in dsk:
        for d in get_dependencies(dsk, k):
            left[d] += 1
    alive, most = set(), 0
    for k in sorted(dsk, key=numbers.__getitem__):
        alive.add(k)
        most = max(most, len(alive))
        for d in get_dependencies(dsk, k):
            left[d] -= 1
            if not left[d]:
                alive.discard(d)
    return most


def test_order_walks_trees_depth_first():
    dsk = {("leaf", i): i for i in range(256)}
    width, level = 256, 0
    while width > 1:
        width //= 2
        for i in range(width):
            below = ("leaf",) if level == 0 else ("sum", level)
            dsk[("sum", level + 1, i)] = (add, (*below, 2 * i), (*below, 2 * i + 1))
        level += 1
    assert most_alive(dsk, order(dsk)) <= 10


def test_order_takes_the_hungry_branch_first():
    dsk = {"small": 1, "top": (add, "small", "big"), "big": (sum, [f"l{i}" for i in range(9)])}
    dsk |= {f"l{i}": i for i in range(9)}
    assert most_alive(dsk, order(dsk)) == 10


def test_layers_merge_and_cull():
    x = delayed(inc)(1, dask_key_name="x")
    graph = HighLevelGraph.from_collections("y", {"y": (inc, "x"), "w": (inc, "x")}, [x])
    assert graph.layers.keys() == {"x", "y"}
    assert graph.dependencies["y"] == {"x"}
    assert graph.dependents["x"] == {"y"}
    assert sorted(graph) == ["w", "x", "y"]
    assert sorted(graph.cull(["y"])) == ["x", "y"]
    assert get_sync(graph, "y") == 3
    assert graph["w"] == (inc, "x")


def test_callbacks_see_each_task():
    seen = []
    hooks = Callback(
        start=lambda dsk: seen.append("start"),
        start_state=lambda dsk, state: seen.append(("state", len(state["ready"]))),
        pretask=lambda key, dsk, state: seen.append(("pre", key)),
        posttask=lambda key, value, dsk, state, worker: seen.append(("post", key, value)),
        finish=lambda dsk, state, failed: seen.append(("finish", failed)),
    )
    with hooks:
        rasker.get({"x": (inc, 1), "y": (inc, "x"), "unused": (inc, 5)}, "y")
    assert seen == [
        "start",
        ("state", 1),
        ("pre", "x"),
        ("post", "x", 2),
        ("pre", "y"),
        ("post", "y", 3),
        ("finish", False),
    ]
    with hooks, pytest.raises(ZeroDivisionError):
        rasker.get({"x": (lambda: 1 / 0,)}, "x")
    assert seen[-1] == ("finish", True)
    n = len(seen)
    rasker.get({"x": (inc, 1)}, "x")
    assert len(seen) == n


def test_a_registered_callback_takes_part_until_it_is_unregistered():
    seen = []
    hook = Callback(pretask=lambda key, dsk, state: seen.append(key))
    hook.register()
    try:
        rasker.get({"x": (inc, 1)}, "x")
    finally:
        hook.unregister()
    rasker.get({"x": (inc, 1)}, "x")
    assert seen == ["x"]


def test_the_progress_bar_ends_full():
    out = io.StringIO()
    with ProgressBar(out=out, width=10) as bar:
        delayed(sum)([delayed(inc)(i) for i in range(5)]).compute(scheduler="sync")
    assert "[##########] | 100% Completed" in out.getvalue()
    assert bar.last_duration > 0
    quiet = io.StringIO()
    with ProgressBar(out=quiet, minimum=10):
        delayed(inc)(1).compute(scheduler="sync")
    assert quiet.getvalue() == ""


def test_the_profiler_measures_each_task():
    with Profiler() as profiler:
        delayed(inc)(delayed(inc)(1)).compute(scheduler="sync")
    assert len(profiler.results) == 2
    assert all(r.end_time >= r.start_time for r in profiler.results)


def test_the_resource_profiler_sees_memory():
    with ResourceProfiler(dt=0.01) as profiler:
        delayed(inc)(1).compute(scheduler="sync")
    assert profiler.results
    assert profiler.results[0].mem > 1


def test_bind_waits_for_its_parents():
    ran = []
    first = delayed(ran.append)("first")
    second = delayed(lambda: ran.append("second") or 5)()
    bound = bind(second, first)
    assert bound.key != second.key
    assert bound.compute(scheduler="sync") == 5
    assert ran == ["first", "second"]


def test_bind_leaves_what_is_omitted_alone():
    below = delayed(inc)(1)
    above = delayed(inc)(below)
    bound = bind(above, delayed(inc)(5), omit=below, seed=1)
    assert below.key in dict(bound.dask)
    assert above.key not in dict(bound.dask)
    assert bound.compute(scheduler="sync") == 3


def test_clone_is_fixed_by_its_seed():
    x = delayed(inc)(1)
    assert clone(x, seed=1).key == clone(x, seed=1).key != clone(x, seed=2).key
    a, b = clone(x, [x], seed=1)
    assert rasker.compute(a, b, scheduler="sync") == (2, [2])


def test_wait_on_gives_values_after_all_are_there():
    ran = []
    a = delayed(lambda: ran.append("a") or 1)()
    b = delayed(lambda: ran.append("b") or 2)()
    a2, _ = wait_on(a, b)
    assert delayed(lambda x: (x, len(ran)))(a2).compute(scheduler="sync") == (1, 2)


def test_checkpoint_is_none_after_everything():
    ran = []
    parts = [delayed(ran.append)(i) for i in range(30)]
    assert checkpoint(parts, split_every=4).compute(scheduler="sync") is None
    assert sorted(ran) == list(range(30))
    with pytest.raises(ValueError, match="split_every"):
        checkpoint(parts, split_every=1)


def step(x, k=1):
    return x + k


def chain_of(n, start=0):
    value = delayed(step)(start, pure=False)
    for k in range(1, n):
        value = delayed(step)(value, k=k, pure=False)
    return value


@pytest.mark.parametrize("n", [1, 2, 3, 2_000])
def test_a_chain_runs_as_one_task(client, n):
    expected = 1 + sum(range(1, n))
    assert chain_of(n).compute() == expected
    done = client.submit(len, client.processing(), pure=False)
    assert done.result() >= 0
    [future] = client.persist([chain_of(n)])
    assert future.compute() == expected


def test_calls_that_others_read_as_well_are_kept_apart(client):
    first = chain_of(3)
    middle = delayed(step)(first, k=10, pure=False)
    last = delayed(step)(middle, k=100, pure=False)
    assert rasker.compute(last, first) == (114, 4)
    assert rasker.compute(middle, last, first) == (14, 114, 4)
    two = delayed(max)(delayed(step)(first, pure=False), delayed(step)(first, k=5, pure=False))
    assert two.compute() == 9


def fail(x):
    raise ZeroDivisionError(f"at {x}")


def test_an_error_in_a_chain_is_that_of_its_step(client):
    value = delayed(step)(delayed(fail)(chain_of(3), pure=False), pure=False)
    with pytest.raises(ZeroDivisionError, match="at 4"):
        value.compute()


def test_a_chain_of_one_call_reads_the_step_before_wherever_it_is_named(client):
    first = delayed(step)(1, pure=False)
    nested = delayed(lambda items, more: (items, more))([first, first], {"a": first}, pure=False)
    assert nested.compute() == ([2, 2], {"a": 2})
