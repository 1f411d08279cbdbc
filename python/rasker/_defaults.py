"""The default of every configuration key that means something here, with its unit."""

from __future__ import annotations

import math
from typing import Any

DEFAULTS: dict[str, Any] = {
    "temporary-directory": None,  # where workers spill and unpack; None: the system's
    "scheduler": None,  # of compute(): 'threads', 'processes', 'sync'; None: the client, or threads
    "num-workers": None,  # of the local schedulers; None: one per core
    "visualization": {"engine": None},  # 'graphviz' or 'text'; None: graphviz where it is installed
    "tokenize": {"ensure-deterministic": False},
    "delayed": {"pure": None, "optimize": True},
    "array": {
        "chunk-size": "128 MiB",
        "chunk-size-tolerance": 1.25,
        "rechunk": {"method": None, "threshold": 4},
        "slicing": {"split-large-chunks": None},
    },
    "dataframe": {
        "convert-string": None,
        "shuffle": {"method": None},
        "parquet": {
            "metadata-task-size-local": 512,
            "metadata-task-size-remote": 1,
            "minimum-partition-size": 75_000_000,  # bytes
        },
    },
    "optimization": {
        "annotations": {"fuse": True},
        "fuse": {"active": None, "ave-width": 1, "max-height": math.inf, "max-width": None},
    },
    "distributed": {
        "scheduler": {
            "allowed-failures": 3,
            "idle-timeout": None,
            "worker-ttl": "5 minutes",
            "worker-saturation": 1.1,
            "work-stealing": True,
            "locks": {"lease-timeout": "30s"},
        },
        "worker": {
            "memory": {
                # Shares of a worker's limit; False switches a step off.
                "target": 0.60,  # values held beyond it go to disk
                "spill": 0.70,  # measured beyond it, values go to disk too
                "pause": 0.80,  # no new work beyond it
                "terminate": 0.95,  # beyond it the executor process that grows is ended
                "max-spill": False,  # the most that may lie on disk, bytes; False: no limit
            },
            "resources": {},
            "preload": [],
            "lifetime": {"duration": None, "stagger": "0 seconds", "restart": False},
        },
        "client": {"heartbeat": "5s"},
        "comm": {
            "timeouts": {"connect": "30s"},
            "require-encryption": None,
            "tls": {
                "ca-file": None,
                "fingerprint": None,
                "client": {"cert": None, "key": None},
                "scheduler": {"cert": None, "key": None},
                "worker": {"cert": None, "key": None},
            },
            "token-file": None,
        },
        "dashboard": {"link": "{scheme}://{host}:{port}/status", "graph-max-items": 5000},
        "admin": {"large-graph-warning-threshold": "10MB", "log-length": 10_000},
    },
}

# Old names to new ones; None means that the key is gone.
DEPRECATIONS: dict[str, str | None] = {
    "fuse-ave-width": "optimization.fuse.ave-width",
    "fuse-max-height": "optimization.fuse.max-height",
    "fuse-max-width": "optimization.fuse.max-width",
    "get": "scheduler",
    "shuffle": "dataframe.shuffle.method",
    "ucx": None,
}
