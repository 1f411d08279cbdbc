"""What a client does: submit, map, gather, scatter, collections, and questions about the cluster."""

from __future__ import annotations

import operator
import os
import time

import pytest

import rasker
from rasker import delayed
from rasker.distributed import Client, Future, LocalCluster, default_client, wait


def inc(x):
    return x + 1


def add(x, y=0):
    return x + y


def fail(message="no luck"):
    raise ValueError(message)


def slow_inc(x, delay=0.1):
    time.sleep(delay)
    return x + 1


def test_submit_runs_a_call(client):
    future = client.submit(add, 1, y=2)
    assert isinstance(future, Future)
    assert future.result() == 3
    assert future.status == "finished"
    assert future.done()


def test_futures_are_arguments_also_inside_containers(client):
    x, y = client.submit(inc, 1), client.submit(inc, 2)
    assert client.submit(add, x, y=y).result() == 5
    assert client.submit(sum, [x, y, 10]).result() == 15
    nested = client.submit(lambda v: v, {"a": [x, (y,)], "b": {"c": x}, "d": {x}})
    assert nested.result() == {"a": [2, (3,)], "b": {"c": 2}, "d": {2}}


def test_functions_of_all_kinds_travel(client):
    n = 5
    assert client.submit(lambda x: x + n, 1).result() == 6
    assert client.submit(operator.add, 1, 2).result() == 3
    assert client.submit("a b".split).result() == ["a", "b"]
    assert client.submit(int, "7").result() == 7


def test_pure_calls_share_a_task_and_others_do_not(client):
    assert client.submit(inc, 1).key == client.submit(inc, 1).key
    assert client.submit(inc, 1).key != client.submit(inc, 2).key
    assert client.submit(inc, 1, pure=False).key != client.submit(inc, 1, pure=False).key
    assert client.submit(inc, 1).key.startswith("inc-")
    assert client.submit(inc, 1, key="mine").key == "mine"


def test_what_cannot_be_called_is_refused_at_once(client):
    with pytest.raises(TypeError, match="callable"):
        client.submit(5)
    with pytest.raises(TypeError, match="callable"):
        client.map(5, [1])
    with pytest.raises(TypeError, match="iterable"):
        client.map(inc)


def test_map_is_a_list_of_futures(client):
    futures = client.map(inc, range(10))
    assert len(futures) == 10
    assert client.gather(futures) == list(range(1, 11))
    assert futures[3].result() == 4
    assert futures[-1].result() == 10
    assert [f.result() for f in futures[2:4]] == [3, 4]
    with pytest.raises(IndexError):
        futures[10]
    assert client.gather(client.map(inc, [])) == []


def test_map_keys_are_a_name_and_a_number(client):
    futures = client.map(inc, range(3))
    assert len({f.key for f in futures}) == 3
    assert all(f.key.startswith("inc-") for f in futures)
    assert all(f.key.startswith("mine-") for f in client.map(inc, range(3), key="mine"))
    assert [f.key for f in client.map(inc, [1, 2], key=["a", "b"])] == ["a", "b"]
    with pytest.raises(ValueError, match="keys"):
        client.map(inc, [1, 2], key=["a"])


def test_map_takes_several_iterables_and_keywords(client):
    assert client.gather(client.map(add, [1, 2, 3], [10, 20])) == [11, 22]
    assert client.gather(client.map(add, [1, 2], y=5)) == [6, 7]
    assert client.gather(client.map(add, iter([1, 2]), batch_size=1)) == [1, 2]
    shared = client.submit(inc, 9)
    assert client.gather(client.map(add, [1, 2], y=shared)) == [11, 12]


def test_map_over_futures_and_over_a_map(client):
    first = client.map(inc, range(5))
    second = client.map(inc, first)
    assert client.gather(second) == [2, 3, 4, 5, 6]
    assert client.gather(client.map(add, first, list(second))) == [3, 5, 7, 9, 11]
    assert client.submit(sum, first).result() == 15


def test_gather_keeps_the_nesting(client):
    x = client.submit(inc, 1)
    assert client.gather(x) == 2
    assert client.gather([x, [x], (x,), {"a": x}, 7]) == [2, [2], (2,), {"a": 2}, 7]
    assert client.gather({x}) == {2}


def test_errors_are_raised_or_skipped(client):
    good, bad = client.submit(inc, 1), client.submit(fail)
    with pytest.raises(ValueError, match="no luck"):
        client.gather([good, bad])
    assert client.gather([good, bad], errors="skip") == [2]
    assert client.gather({"a": [good, bad]}, errors="skip") == {"a": [2]}
    with pytest.raises(ValueError, match="errors"):
        client.gather([good], errors="whatever")


def test_scatter_keeps_the_shape(client):
    value = {"big": list(range(100))}
    assert client.submit(len, client.scatter([value])[0]).result() == 1
    x = client.scatter(5)
    assert isinstance(x, Future)
    assert x.result() == 5
    assert client.gather(client.scatter((1, 2))) == (1, 2)
    assert client.gather(client.scatter({"my-x": 1})) == {"my-x": 1}
    assert client.scatter({"my-y": 1})["my-y"].key == "my-y"
    assert client.gather(client.scatter(range(3))) == [0, 1, 2]
    assert client.gather(client.scatter(iter([1]))) == [1]
    assert client.scatter(7).key == client.scatter(7).key
    assert client.scatter(7, hash=False).key != client.scatter(7, hash=False).key
    assert client.submit(inc, client.scatter(1, broadcast=True)).result() == 2


def test_priorities_retries_and_resources_are_accepted(client):
    assert client.submit(inc, 1, priority=5, retries=2, pure=False).result() == 2
    assert client.gather(client.map(inc, [1], priority=-5, retries=1)) == [2]


def test_retries_run_a_failing_task_again(client, tmp_path):
    path = str(tmp_path / "tries")

    def flaky(path):
        with open(path, "a") as f:
            f.write("x")
        if os.path.getsize(path) < 3:
            raise OSError("not yet")
        return os.path.getsize(path)

    assert client.submit(flaky, path, retries=2, pure=False).result() == 3


def test_a_task_can_be_sent_to_a_worker(client):
    address = list(client.scheduler_info()["workers"])[0]
    future = client.submit(inc, 1, workers=[address], pure=False)
    assert future.result() == 2
    assert list(client.who_has([future])[future.key]) == [address]


def test_lazy_values_compute_through_the_current_client(client):
    x = delayed(add)(delayed(inc)(1), [delayed(inc)(2)][0])
    assert x.compute() == 5
    assert rasker.compute(x, {"a": x}, 1) == (5, {"a": 5}, 1)
    assert client.compute(x).result() == 5
    a, b, c = client.compute([x, x + 1, 7])
    assert (a.result(), b.result(), c) == (5, 6, 7)
    assert client.compute(x, sync=True) == 5


def test_persist_returns_at_once_and_keeps_results(client):
    x = delayed(slow_inc)(1, 0.2)
    started = time.perf_counter()
    kept = client.persist(x)
    assert time.perf_counter() - started < 0.15
    assert kept.key == x.key
    assert (kept + 1).compute() == 3
    (again,) = rasker.persist(x)
    assert again.compute() == 2


def test_get_runs_a_graph(client):
    dsk = {"x": 1, "y": (inc, "x"), "z": (sum, ["x", "y", (inc, "y")])}
    assert client.get(dsk, "z") == 6
    assert client.get(dsk, ["x", ["y", "z"]]) == [1, [2, 6]]
    futures = client.get(dsk, ["x", "y"], sync=False)
    assert client.gather(futures) == [1, 2]
    with pytest.raises((ValueError, RuntimeError), match="cycle"):
        client.get({"a": (inc, "b"), "b": (inc, "a")}, "a")
    with pytest.raises(KeyError):
        client.get({"a": 1}, "b")


def test_arrays_of_others_compute_here(client):
    da = pytest.importorskip("dask.array")
    x = da.arange(100, chunks=10)
    assert client.compute((x + 1).sum()).result() == 5050
    (kept,) = rasker.persist(x)
    assert rasker.compute(kept.sum()) == (4950,)


def test_cancel_ends_the_wait(client):
    future = client.submit(slow_inc, 1, 5, pure=False)
    client.cancel(future)
    assert future.cancelled()
    from concurrent.futures import CancelledError

    with pytest.raises(CancelledError):
        future.result(timeout=2)


def test_a_failed_task_can_be_tried_again(client, tmp_path):
    path = tmp_path / "there"

    def read(path):
        with open(path) as f:
            return f.read()

    future = client.submit(read, str(path))
    assert isinstance(future.exception(), FileNotFoundError)
    path.write_text("now")
    future.retry()
    assert future.result(timeout=5) == "now"


def test_questions_about_the_cluster(client):
    future = client.submit(inc, 41)
    wait(future)
    info = client.scheduler_info()
    workers = set(info["workers"])
    assert info["type"] == "Scheduler"
    assert set(client.nthreads()) == set(client.ncores()) == workers
    assert set(client.who_has([future])) == {future.key}
    assert future.key in [k for keys in client.has_what().values() for k in keys]
    assert set(client.processing()) <= workers
    assert len(client.scheduler_info(n_workers=1)["workers"]) == 1
    client.wait_for_workers(len(workers), timeout=5)
    with pytest.raises(TimeoutError, match=f"of {len(workers) + 5}"):
        client.wait_for_workers(len(workers) + 5, timeout=0.05)


def test_run_calls_each_worker(client):
    found = client.run(os.getpid)
    assert set(found) == set(client.nthreads())
    assert client.run(add, 1, y=2) == dict.fromkeys(found, 3)
    with pytest.raises(ValueError, match="no luck"):
        client.run(fail)
    returned = client.run(fail, on_error="return")
    assert all(isinstance(v, ValueError) for v in returned.values())
    assert client.run(fail, on_error="ignore") == {}
    one = list(found)[0]
    assert list(client.run(os.getpid, workers=[one])) == [one]


def test_events_are_kept(client):
    client.log_event("colors", {"name": "red"})
    client.log_event("colors", "blue")
    assert [message for _, message in client.get_events("colors")][-2:] == [
        {"name": "red"}, "blue",
    ]  # fmt: skip


def test_versions_are_compared(client):
    found = client.get_versions(check=True)
    assert set(found["workers"]) == set(client.nthreads())
    assert found["client"]["packages"]["python"]


def test_a_failed_task_can_be_run_here(client):
    future = client.submit(fail, client.submit(str, 5))
    assert future.exception()
    if client.cluster.scheduler_address.startswith("inproc"):
        # Calls of threads hold objects of this process, which the scheduler cannot hand out.
        with pytest.raises(NotImplementedError, match="executor processes"):
            client.recreate_error_locally(future)
        return
    with pytest.raises(ValueError, match="5"):
        client.recreate_error_locally(future)


def test_the_executor_is_that_of_the_standard_library(client):
    from concurrent.futures import Executor, as_completed, wait

    executor = client.get_executor(retries=1)
    assert isinstance(executor, Executor)
    with executor:
        futures = [executor.submit(add, i, y=1) for i in range(5)]
        assert sorted(f.result() for f in as_completed(futures)) == [1, 2, 3, 4, 5]
        assert list(executor.map(add, range(3), range(3))) == [0, 2, 4]
        bad = executor.submit(fail)
        assert isinstance(bad.exception(), ValueError)
        assert wait(futures).not_done == set()
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(inc, 1)
    with pytest.raises(TypeError, match="nonsense"):
        client.get_executor(nonsense=1)


def test_the_latest_client_is_the_default():
    with Client(n_workers=1, threads_per_worker=1, processes=False) as a:
        assert default_client() is a
        with Client(a.cluster, set_as_default=False) as b:
            assert default_client() is a
            assert b.submit(inc, 1).result() == 2
            with b.as_current():
                assert default_client() is b
                assert Client.current() is b
            assert default_client() is a
    assert a.status == "closed"


def test_clients_of_one_cluster_share_tasks():
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False) as cluster:
        with Client(cluster) as a, Client(cluster) as b:
            x = a.submit(inc, 1, key="shared")
            assert x.result() == 2
            assert Future("shared", b).result() == 2


def test_restart_forgets_everything():
    with Client(n_workers=1, threads_per_worker=1, processes=False) as client:
        future = client.submit(inc, 1)
        future.result()
        client.restart()
        assert future.status in ("cancelled", "lost")
        assert client.submit(inc, 2).result() == 3


def test_an_address_nobody_listens_at_times_out():
    with pytest.raises((TimeoutError, OSError), match="127.0.0.1:1"):
        Client("tcp://127.0.0.1:1", timeout="300ms")


def test_arguments_of_a_cluster_are_refused_with_an_address():
    with pytest.raises(TypeError, match="n_workers"):
        Client("tcp://127.0.0.1:1", n_workers=2)
    with pytest.raises(TypeError, match="nonsense"):
        Client(nonsense=2)


def test_representations_say_what_is_there(client):
    text = repr(client)
    assert "workers=" in text
    assert "threads=" in text
    assert "<table>" in client._repr_html_()
    assert "LocalCluster" in repr(client.cluster)
    assert "<table>" in client.cluster._repr_html_()
    future = client.submit(inc, 1)
    future.result()
    assert repr(future) == f"<Future: finished, key: {future.key}>"
    assert "finished" in future._repr_html_()


@pytest.mark.parametrize(
    "name",
    ["publish_dataset", "get_dataset", "upload_file",
     "register_plugin", "run_on_scheduler", "get_worker_logs", "profile", "get_task_stream",
     "subscribe_topic", "set_metadata", "dump_cluster_state", "nbytes"],
)  # fmt: skip
def test_what_is_not_built_says_so(client, name):
    with pytest.raises(NotImplementedError, match=name):
        getattr(client, name)()
    assert not hasattr(client, "no_such_method")


@pytest.mark.parametrize("n", [1_000, 10_000, 1_000_000])
def test_large_arguments_and_constants_reach_the_task(client, n):
    numbers = bytes(n)
    assert client.submit(len, numbers, pure=False).result() == n
    mapped = client.map(lambda i, more: i + len(more), range(3), more=numbers, pure=False)
    assert client.gather(mapped) == [n, n + 1, n + 2]
    assert client.submit(lambda: len(numbers), pure=False).result() == n


def shout(n):
    raise ValueError("x" * n)


def test_large_errors_and_answers_come_back_whole(client):
    with pytest.raises(ValueError) as error:
        client.submit(shout, 200_000, pure=False).result()
    assert str(error.value) == "x" * 200_000
    assert set(client.run(bytes, 200_000).values()) == {bytes(200_000)}
    assert set(client.run(len, bytes(200_000)).values()) == {200_000}
