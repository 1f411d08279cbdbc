"""Jobs that need more memory than their workers may use, in short; `memory_jobs` has them in long.

Where a memory cgroup can be made, the jobs run inside one, and the kernel must not have killed.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

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
