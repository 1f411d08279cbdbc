"""The peers, each behind the same few calls.

A peer is started once per family in a process of its own, and lives as long as the family.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

from bench.row import Setup

# name: (module of the class, class, distribution whose version is shown)
PEERS = {
    "rasker": ("bench.peers.dask_like", "Rasker", "rasker"),
    "dask": ("bench.peers.dask_like", "Dask", "dask"),
    "dask-threaded": ("bench.peers.dask_like", "DaskThreaded", "dask"),
    "frisky": ("bench.peers.frisky_cluster", "Frisky", "frisky"),
    "ray": ("bench.peers.ray_cluster", "Ray", "ray"),
    "joblib": ("bench.peers.pools", "Joblib", "joblib"),
    "futures": ("bench.peers.pools", "Futures", ""),
}

# The same for rows about tables (mode "tables").
ENGINES = {
    "rasker": ("bench.peers.engines", "Rasker", "rasker"),
    "rasker-workers": ("bench.peers.engines", "RaskerWorkers", "rasker"),
    "datafusion": ("bench.peers.engines", "DataFusion", "datafusion"),
    "polars": ("bench.peers.engines", "Polars", "polars"),
    "duckdb": ("bench.peers.engines", "DuckDb", "duckdb"),
    "dask": ("bench.peers.engines", "Dask", "dask"),
}


class Peer:
    """What the rows call. `can` names the abilities that rows may need."""

    can: frozenset[str] = frozenset()
    package = ""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def submit(self, function: Any, *args: Any) -> Any:
        """Start one call; futures of this peer may be arguments if it can "references"."""
        raise NotImplementedError

    def map(self, function: Any, items: Any) -> Any:
        raise NotImplementedError

    def gather(self, futures: Any) -> list[Any]:
        raise NotImplementedError

    def result(self, future: Any) -> Any:
        return self.gather([future])[0]


def load(name: str, setup: Setup) -> tuple[Peer, str]:
    """Import and start a peer; return it with its version."""
    known = ENGINES if setup.mode == "tables" else PEERS
    module, kind, distribution = known[name]
    peer: Peer = getattr(import_module(module), kind)(setup)
    peer.start()
    if not distribution:
        import platform

        return peer, platform.python_version()
    return peer, version(distribution)
