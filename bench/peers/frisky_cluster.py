"""Frisky, as its own interface has it: no `pure`, a list of futures from `map`."""

from __future__ import annotations

import time
from typing import Any

import frisky

from bench.peers import Peer


class Frisky(Peer):
    package = "frisky"
    can = frozenset({"map", "submit", "references", "first", "placement"})

    def start(self) -> None:
        if self.setup.mode == "none":
            return
        n_workers, n_threads = (2, 1) if self.setup.processes else (1, 2)
        # The cluster must stay referenced for as long as its client is used.
        self.cluster = frisky.LocalCluster(
            n_workers=n_workers, threads_per_worker=n_threads, processes=self.setup.processes
        )
        self.client = self.cluster.get_client()

    def stop(self) -> None:
        if self.setup.mode == "none":
            return
        self.client.close()
        self.cluster.close()

    def submit(self, function: Any, *args: Any) -> Any:
        return self.client.submit(function, *args)

    def submit_to(self, worker: str, function: Any, *args: Any) -> Any:
        return self.client.submit(function, *args, workers=[worker])

    def map(self, function: Any, items: Any) -> Any:
        return self.client.map(function, items)

    def gather(self, futures: Any) -> list[Any]:
        return list(self.client.gather(futures))

    def result(self, future: Any) -> Any:
        return future.result()

    def wait(self, futures: list[Any]) -> None:
        frisky.wait(futures)

    def workers(self) -> list[str]:
        """The addresses, taken from where small tasks went: the cluster lists none."""
        addresses: set[str] = set()
        while len(addresses) < 2:
            probes = [self.client.submit(time.sleep, 0.001 * i) for i in range(8)]
            self.client.gather(probes)
            for task in self.client.get_scheduler_state()["tasks"]:
                addresses.update(task["who_has"])
        return sorted(addresses)
