"""Clients in coroutines."""

from __future__ import annotations

import asyncio
import time

import pytest

import rasker
from rasker import delayed
from rasker.distributed import Client, LocalCluster, as_completed, wait


def inc(x):
    return x + 1


def slow(x, delay):
    time.sleep(delay)
    return x


def in_loop(function):
    def test():
        async def run():
            async with LocalCluster(
                n_workers=1, threads_per_worker=2, processes=False, asynchronous=True
            ) as cluster:
                async with Client(cluster, asynchronous=True) as client:
                    await function(client)

        asyncio.run(asyncio.wait_for(run(), 60))

    test.__name__ = function.__name__
    return test


@in_loop
async def test_futures_can_be_awaited(client):
    future = client.submit(inc, 1)
    assert await future == 2
    assert await future.result() == 2
    assert await future.exception() is None
    assert await client.gather(client.map(inc, range(3))) == [1, 2, 3]
    assert await client.gather({"a": [future]}) == {"a": [2]}


@in_loop
async def test_errors_come_out_of_await(client):
    bad = client.submit(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await bad
    assert isinstance(await bad.exception(), ZeroDivisionError)
    assert (await bad.traceback()) is not None
    assert await client.gather([bad, client.submit(inc, 1)], errors="skip") == [2]


@in_loop
async def test_futures_end_while_iterating(client):
    found = [await f async for f in as_completed(client.map(inc, range(5)))]
    assert sorted(found) == [1, 2, 3, 4, 5]
    pairs = [v async for _, v in as_completed(client.map(inc, range(5)), with_results=True)]
    assert sorted(pairs) == [1, 2, 3, 4, 5]


@in_loop
async def test_the_loop_goes_on_while_a_result_is_awaited(client):
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.005)

    ticking = asyncio.create_task(tick())
    await client.submit(slow, 1, 0.2, pure=False)
    await client.gather([client.submit(slow, 2, 0.2, pure=False)])
    ticking.cancel()
    assert ticks > 10


@in_loop
async def test_many_gathers_wait_side_by_side(client):
    # More than the pool of asyncio has threads: none may keep another from being heard.
    gate = [client.submit(slow, i, 0.3, pure=False) for i in range(2)]
    gathers = [asyncio.ensure_future(client.gather(gate)) for _ in range(100)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(client.scheduler_info(), 5)
    assert await asyncio.gather(*gathers) == [[0, 1]] * 100


@in_loop
async def test_collections_and_the_rest_can_be_awaited(client):
    x = delayed(inc)(delayed(inc)(1))
    assert await client.compute(x) == 3
    assert await client.compute([x, x], sync=True) == [3, 3]
    assert await client.get({"x": (inc, 1)}, "x") == 2
    assert (await wait(client.map(inc, range(3)))).not_done == set()
    scattered = await client.scatter([1, 2])
    assert await client.gather(scattered) == [1, 2]
    assert await client.nthreads()
    assert set((await client.run(inc, 1)).values()) == {2}
    await client.cancel(client.submit(slow, 1, 1, pure=False))
    assert rasker.is_dask_collection(client.persist(x))


@in_loop
async def test_a_time_limit_holds(client):
    future = client.submit(slow, 1, 0.5, pure=False)
    with pytest.raises(TimeoutError):
        await future.result(timeout=0.02)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(future, 0.02)
    assert await future == 1


def test_an_asynchronous_client_needs_async_with():
    client = Client(asynchronous=True, n_workers=1, processes=False)
    with pytest.raises(RuntimeError, match="async with"):
        client.__enter__()
