"""Contexts that run statements here and on two workers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The suite's own form, and the tables and texts of the benchmarks.
HERE = Path(__file__).resolve().parent
sys.path.extend([str(HERE), str(HERE.parent.parent)])


@pytest.fixture(scope="session")
def two_workers():
    """A client of two workers with one thread each."""
    from rasker.distributed import Client

    with Client(n_workers=2, threads_per_worker=1, set_as_default=False) as client:
        yield client


@pytest.fixture(params=["embedded", "workers"])
def context(request):
    """An empty context; on workers all tasks have their part in any plan, however small it is."""
    from rasker import config
    from rasker.sql import Context

    if request.param == "embedded":
        yield Context(False, threads=2)
        return
    client = request.getfixturevalue("two_workers")
    with config.set({"sql.whole-below": 0, "sql.range-above": 0}):
        yield Context(client, threads=2)


def answer(result):
    """All rows; of a context on workers they are made there, or it fails."""
    import pyarrow as pa

    if result._client is False:
        return result.to_arrow()
    return pa.concat_tables([future.result() for future in result.to_futures()])
