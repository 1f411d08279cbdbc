"""Clusters of this computer, the schedulers without a client, and names that are not built."""

from __future__ import annotations

import io
import os

import pytest

import rasker
from rasker import delayed
from rasker.diagnostics import Profiler, ProgressBar
from rasker.distributed import Client, LocalCluster, Security
from rasker.distributed.machine import memory_limit_of, memory_total, shape_of
from rasker.distributed.not_built import NAMES
from rasker.exceptions import FutureCancelledError, KilledWorker, NoValidWorkerError


def inc(x):
    return x + 1


def test_a_cluster_gives_clients():
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, name="mine") as cluster:
        assert cluster.name == "mine"
        assert cluster.status == "running"
        with cluster.get_client() as client:
            assert client.submit(inc, 1).result() == 2
            assert len(client.nthreads()) == 2
        cluster.wait_for_workers(2, timeout=5)
    assert cluster.status == "closed"
    with pytest.raises(RuntimeError, match="closed"):
        Client(cluster)


def test_processes_have_processes_of_their_own():
    with Client(n_workers=2, threads_per_worker=1) as client:
        pids = {client.submit(os.getpid, pure=False).result() for _ in range(10)}
        assert os.getpid() not in pids


def test_another_client_can_join_by_address():
    with LocalCluster(n_workers=1, threads_per_worker=1) as cluster:
        assert cluster.scheduler_address.startswith("tcp://127.0.0.1:")
        with Client(cluster.scheduler_address) as client:
            assert client.submit(inc, 1).result() == 2


@pytest.mark.parametrize("name", ["scale", "adapt", "get_logs", "scale_up", "dashboard_link"])
def test_what_a_cluster_cannot_do_yet_says_so(name):
    with LocalCluster(n_workers=1, processes=False) as cluster:
        with pytest.raises(NotImplementedError, match="not built"):
            found = getattr(cluster, name)
            found(2)
    assert not hasattr(cluster, "no_such_thing")


def test_an_unknown_argument_is_named():
    with pytest.raises(TypeError, match="n_wrokers"):
        LocalCluster(n_wrokers=2)


def test_workers_and_threads_are_chosen_from_the_cores(monkeypatch):
    import rasker.distributed.machine as machine

    def shapes(cores):
        monkeypatch.setattr(machine, "CPU_COUNT", cores)
        return (
            shape_of(None, None, True),
            shape_of(None, None, False),
            shape_of(2, None, True),
            shape_of(None, 2, True),
            shape_of(None, 2, False),
            shape_of(3, 5, True),
        )

    assert shapes(2) == ((2, 1), (1, 2), (2, 1), (1, 2), (1, 2), (3, 5))
    assert shapes(8) == ((4, 2), (1, 8), (2, 4), (4, 2), (1, 2), (3, 5))
    assert shapes(12)[0] == (4, 3)
    assert shapes(64)[0] == (8, 8)
    with pytest.raises(ValueError, match="threads_per_worker"):
        shape_of(1, 0, True)


def test_memory_limits_are_read():
    total = memory_total()
    assert memory_limit_of("auto", 4) == total // 4
    assert memory_limit_of(0.5, 4) == memory_limit_of("0.5", 1) == int(total * 0.5)
    assert memory_limit_of("1 MiB", 4) == 2**20
    assert memory_limit_of(1000, 1) == 1000
    assert memory_limit_of(0, 1) == memory_limit_of(None, 1) == 0
    assert memory_limit_of(10**18, 1) == total
    with pytest.raises(ValueError, match="memory"):
        memory_limit_of(-5, 1)


@pytest.mark.parametrize("scheduler", ["threads", "processes", "sync"])
def test_lazy_values_compute_without_a_client(scheduler):
    total = delayed(sum)([delayed(inc)(i) for i in range(10)])
    assert total.compute(scheduler=scheduler) == 55
    assert rasker.compute(total, [total, 1], scheduler=scheduler) == (55, [55, 1])
    with pytest.raises(ZeroDivisionError):
        delayed(lambda: 1 / 0)().compute(scheduler=scheduler)
    (kept,) = rasker.persist(total, scheduler=scheduler)
    assert kept.compute(scheduler="sync") == 55


def test_threads_are_the_default():
    assert delayed(os.getpid)().compute() == os.getpid()
    assert delayed(os.getpid)().compute(scheduler="processes") != os.getpid()


@pytest.mark.parametrize("scheduler", ["threads", "processes", "sync"])
def test_get_functions_run_graphs(scheduler):
    get = rasker.base.get_scheduler(scheduler=scheduler)
    assert get({"x": 1, "y": (inc, "x")}, ["y", ["x"]]) == (2, (1,))


@pytest.mark.parametrize("scheduler", ["threads", "processes", "sync"])
def test_the_progress_bar_follows_each_scheduler(scheduler):
    out = io.StringIO()
    with ProgressBar(out=out):
        assert delayed(sum)([delayed(inc)(i) for i in range(5)]).compute(scheduler=scheduler) == 15
    assert "100% Completed" in out.getvalue()


def test_the_profiler_follows_threads_and_refuses_processes():
    x = delayed(inc)(delayed(inc)(1))
    with Profiler() as profiler:
        assert x.compute(scheduler="threads") == 3
    assert len(profiler.results) == 2
    with Profiler(), pytest.raises(NotImplementedError, match="processes"):
        x.compute(scheduler="processes")


NOT_MADE = ["Lock", "Queue", "Variable", "Event", "Semaphore", "MultiLock", "Actor", "Nanny",
            "Scheduler", "Worker", "SSHCluster", "SpecCluster", "Adaptive", "performance_report",
            "get_task_stream", "span", "rpc", "connect", "sync"]  # fmt: skip


@pytest.mark.parametrize("name", NOT_MADE)
def test_names_that_are_not_built_say_so_when_used(name):
    assert NAMES[name].__doc__
    with pytest.raises(NotImplementedError, match=f"{name} is not built yet; "):
        NAMES[name]()


def test_plugins_can_be_written_but_not_registered():
    class Mine(NAMES["WorkerPlugin"]):
        def setup(self, worker):
            pass

    assert Mine()


def test_security_reads_the_configuration():
    with rasker.config.set({"distributed.comm.tls.ca-file": "ca.pem"}):
        assert Security().tls_ca_file == "ca.pem"
        assert Security(tls_ca_file="mine.pem").tls_ca_file == "mine.pem"
    assert Security(tls_client_cert="c").get_tls_config_for_role("client")["cert"] == "c"
    with pytest.raises(TypeError, match="nonsense"):
        Security(nonsense=1)


def test_errors_say_what_to_do():
    assert "attempt 4" in str(KilledWorker("x", "w1", 3))
    assert "allowed-failures" in str(KilledWorker("x", "w1", 3))
    assert "resources {'GPU': 1}" in str(NoValidWorkerError("x", None, None, {"GPU": 1}, 5))
    assert str(FutureCancelledError("x", "lost")) == "task 'x' was cancelled: lost"
