"""Jobs that need more memory than their workers may use, in short; `memory_jobs` has them in long.

Where a memory cgroup can be made, the jobs run inside one, and the kernel must not have killed.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import rasker
from rasker.distributed.machine import memory_shares
from rasker.exceptions import LostError

_PATH = Path(__file__).with_name("memory_jobs.py")
_SPEC = importlib.util.spec_from_file_location("memory_jobs", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
jobs = importlib.util.module_from_spec(_SPEC)
# Executors find the functions of the jobs by this name too: they are sent by value.
_SPEC.loader.exec_module(jobs)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux's way")

LIMIT = 256 << 20


def run(name, limit, **more):
    result = jobs.in_cgroup(name, limit, **more)
    if result is None:  # no rights to make a cgroup
        result = jobs.JOBS[name](limit, **more)
    return result


def test_a_streamed_sum_of_eight_times_the_limit_spills_nothing():
    assert run("streamed", LIMIT, factor=8)["bytes"] == 8 * 2 * LIMIT


def test_values_of_four_times_the_limit_are_kept_and_summed_twice():
    result = run("persisted", LIMIT, factor=4)
    assert result["bytes"] == 4 * 2 * LIMIT
    assert result["made_share"] > 0 and result["summed_share"] > 0


def is_in_shared_memory(n):
    """Whether a new array of this executor lies in memory that other processes can map."""
    array = jobs.np.ones(n)
    address = array.__array_interface__["data"][0]
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            low, high = (int(end, 16) for end in line.split()[0].split("-"))
            if low <= address < high:
                return "rasker-arena" in line
    return False


def test_arrays_are_born_where_they_can_leave_from_once_memory_fills_up():
    n = jobs.CHUNK // 8
    options = {"n_workers": 1, "threads_per_worker": 1, "memory_limit": LIMIT}
    with jobs.LocalCluster(**options) as workers, jobs.Client(workers) as client:
        assert not client.submit(is_in_shared_memory, n, pure=False).result(30)
        chunks = client.map(jobs.make, range(8))
        jobs.wait(chunks, timeout=60)
        assert client.submit(is_in_shared_memory, n, pure=False).result(30)
        # Small ones stay on the heap.
        assert not client.submit(is_in_shared_memory, 1000, pure=False).result(30)


def test_a_task_that_takes_all_memory_fails_alone():
    run("spike", LIMIT, factor=4)


def test_damaged_spill_files_are_never_wrong_values():
    result = run("damaged", LIMIT // 2, n=1000)
    assert result["damaged"] >= 1000
    assert result["found"] >= 1000


def test_a_disk_that_is_full_for_a_while_loses_nothing():
    # Not in a cgroup: the small disk lies in memory, and would count.
    result = jobs.filled(LIMIT)
    assert result["spilled_after"] > result["spilled_while_full"]


def test_limits_of_the_control_group_are_seen():
    group = jobs.Cgroup(512 << 20)
    if group.path is None:
        pytest.skip("no memory cgroup can be made here")
    try:
        enter = 'echo $$ > "$0"; exec "$@"'
        ask = "from rasker.distributed.machine import memory_total; print(memory_total())"
        command = ["sh", "-c", enter, str(group.path / "cgroup.procs"), sys.executable, "-c", ask]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert int(done.stdout) == 512 << 20
    finally:
        group.close()


def test_left_over_folders_go_and_own_ones_too(tmp_path):
    left = tmp_path / "rasker-spill-0123"
    left.mkdir()
    (left / "file").write_bytes(b"of a process that was killed")
    with jobs.cluster(128 << 20, str(tmp_path)) as workers, jobs.Client(workers) as client:
        chunks = client.map(jobs.small, range(3000))
        jobs.wait(chunks, timeout=60)
        assert not left.exists()
        folders = list(tmp_path.glob("rasker-spill-*"))
        assert folders
        assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}
        assert all(client.gather(client.map(jobs.is_whole, chunks, range(3000))))
    assert list(tmp_path.iterdir()) == []


def test_scattered_values_go_to_disk_and_a_damaged_one_is_an_error(tmp_path):
    with jobs.cluster(128 << 20, str(tmp_path)) as workers, jobs.Client(workers) as client:
        values = client.scatter([jobs.small(i) for i in range(3000)])
        jobs.wait(client.map(jobs.is_whole, values, range(3000)), timeout=60)
        files = sorted(tmp_path.glob("rasker-spill-*/*"))
        assert len(files) > 300
        for kind, path in enumerate(files):
            jobs.damage(path, kind % 5)
        checks = client.map(jobs.is_whole, values, range(3000), pure=False)
        jobs.wait(checks, timeout=120)
        ends = [check.exception() or check.result() for check in checks]
    assert all(end is True or isinstance(end, LostError) for end in ends)
    n_lost = sum(isinstance(end, LostError) for end in ends)
    assert 0 < n_lost <= len(files), (n_lost, len(files))


def test_thread_executors_spill_too(tmp_path):
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False}
    with jobs.Client(memory_limit="1GiB", local_directory=str(tmp_path), **options) as client:
        chunks = client.map(jobs.make, range(160))
        assert jobs.tree(client, chunks).result(60) == jobs.expected(160)
        assert jobs.disk_of(client)["written_bytes"] > 0


@pytest.mark.parametrize("value", [1.5, -0.1])
def test_shares_are_checked(value):
    with rasker.config.set({"distributed.worker.memory.pause": value}):
        with pytest.raises(ValueError, match="pause"):
            memory_shares()
