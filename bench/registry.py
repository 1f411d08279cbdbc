"""All families, in the order of the table."""

from __future__ import annotations

from bench.row import Family
from bench.rows import (
    balance,
    latency,
    map_tasks,
    payloads,
    reading,
    small_queries,
    startup,
    tpc,
    transfer,
    tree,
    versus_dask,
)

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        map_tasks.FAMILY,
        balance.FAMILY,
        latency.FAMILY,
        tree.SUBMITTED,
        tree.DELAYED,
        payloads.PROCESSES,
        payloads.THREADS,
        startup.COLD,
        startup.IDLE,
        transfer.TO_CLIENT,
        transfer.SAME_HOST,
        transfer.TCP,
        tpc.TPCH,
        tpc.MEMORY,
        tpc.TPCDS,
        versus_dask.FAMILY,
        reading.FAMILY,
        small_queries.FAMILY,
    )
}
