"""Ray on two CPUs, with its object store bounded."""

from __future__ import annotations

from typing import Any

import ray

from bench.peers import Peer


class Ray(Peer):
    package = "ray"
    can = frozenset({"map", "submit", "references", "first"})

    def start(self) -> None:
        if self.setup.mode == "none":
            return
        self.remote: dict[Any, Any] = {}
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=2_000_000_000,
        )

    def stop(self) -> None:
        if self.setup.mode != "none":
            ray.shutdown()

    def submit(self, function: Any, *args: Any) -> Any:
        remote = self.remote.get(function)
        if remote is None:
            remote = self.remote[function] = ray.remote(function)
        return remote.remote(*args)

    def map(self, function: Any, items: Any) -> Any:
        return [self.submit(function, item) for item in items]

    def gather(self, futures: Any) -> list[Any]:
        return list(ray.get(list(futures)))

    def result(self, future: Any) -> Any:
        return ray.get(future)
