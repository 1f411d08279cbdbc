"""Futures on a cluster: `Client`, `LocalCluster`, `Future`, `wait`, `as_completed` and the rest.

Examples
--------
>>> from rasker.distributed import Client  # doctest: +SKIP
>>> with Client(n_workers=2) as client:  # doctest: +SKIP
...     client.submit(sum, [1, 2]).result()
3
"""

from __future__ import annotations

from rasker.distributed.future import Future
from rasker.distributed.future_list import FutureList

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rasker.distributed.client import Client
    from rasker.distributed.defaults import default_client
    from rasker.distributed.local_cluster import LocalCluster
    from rasker.distributed.not_built import Status
    from rasker.distributed.security import Security
    from rasker.distributed.waiting import as_completed, fire_and_forget, futures_of, wait
    from rasker.distributed.worker_context import (
        get_client,
        get_worker,
        local_client,
        rejoin,
        secede,
        worker_client,
    )
    from rasker.exceptions import (
        CancelledError,
        FutureCancelledError,
        KilledWorker,
        NoValidWorkerError,
        Reschedule,
        TimeoutError,
    )

# A function and its module have one name; the module is loaded first, so that the name stays the
# function's.
from rasker.distributed.progress import progress

_HOMES = {
    "Client": "client",
    "LocalCluster": "local_cluster",
    "Security": "security",
    "Status": "not_built",
    "as_completed": "waiting",
    "default_client": "defaults",
    "fire_and_forget": "waiting",
    "futures_of": "waiting",
    "get_client": "worker_context",
    "get_worker": "worker_context",
    "local_client": "worker_context",
    "rejoin": "worker_context",
    "secede": "worker_context",
    "wait": "waiting",
    "worker_client": "worker_context",
    "get_versions": "versions",
}
_EXCEPTIONS = frozenset(
    "CancelledError FutureCancelledError KilledWorker NoValidWorkerError Reschedule TimeoutError "
    "LostError SchedulerClosedError TaskOutOfMemory WorkerStartTimeoutError".split()
)
_MESSAGES = frozenset(("print", "warn"))
_MODULES = frozenset(
    "client executor future future_list local_cluster not_built recreate representations security "
    "versions waiting worker_context".split()
)

__all__ = [
    "CancelledError",
    "Client",
    "Future",
    "FutureCancelledError",
    "FutureList",
    "KilledWorker",
    "LocalCluster",
    "NoValidWorkerError",
    "Reschedule",
    "Security",
    "Status",
    "TimeoutError",
    "as_completed",
    "default_client",
    "fire_and_forget",
    "futures_of",
    "get_client",
    "get_worker",
    "local_client",
    "progress",
    "rejoin",
    "secede",
    "wait",
    "worker_client",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOMES:
        value = getattr(import_module(f"rasker.distributed.{_HOMES[name]}"), name)
    elif name in _EXCEPTIONS:
        value = getattr(import_module("rasker.exceptions"), name)
    elif name in _MESSAGES:
        value = getattr(import_module("rasker.distributed.messages"), name)
    elif name in _MODULES:
        return import_module(f"rasker.distributed.{name}")
    elif name in ("config", "exceptions"):
        value = import_module(f"rasker.{name}")
    else:
        found = import_module("rasker.distributed.not_built").NAMES
        if name not in found:
            raise AttributeError(f"module 'rasker.distributed' has no attribute {name!r}")
        value = found[name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    from rasker.distributed.not_built import NAMES

    return sorted({*globals(), *_HOMES, *_EXCEPTIONS, *_MESSAGES, *NAMES})
