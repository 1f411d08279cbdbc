"""Clusters that many tests share: starting one for each test would be most of the time."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def process_client():
    """A client of two workers whose tasks run in processes."""
    from rasker.distributed import Client

    with Client(n_workers=2, threads_per_worker=1, processes=True) as client:
        yield client


@pytest.fixture(scope="module")
def thread_client():
    """A client of one worker whose tasks run in threads of this process."""
    from rasker.distributed import Client

    with Client(n_workers=1, threads_per_worker=2, processes=False) as client:
        yield client


@pytest.fixture(params=["processes", "threads"])
def client(request):
    """Either client; it is the current one inside the test."""
    name = "process_client" if request.param == "processes" else "thread_client"
    found = request.getfixturevalue(name)
    with found.as_current():
        yield found
