"""Rasker: parallel computing in Python on one fast engine.

Importing this package costs a few milliseconds: everything but `delayed` is loaded when it is first
used.  The common names are here; the modules carry the names that users of Dask know.

Examples
--------
>>> import rasker
>>> inc = rasker.delayed(lambda x: x + 1)
>>> rasker.compute(inc(1), inc(2), scheduler="sync")
(2, 3)
"""

from __future__ import annotations

from rasker._version import __version__

# `rasker.delayed` is a function and also the module that holds it.  The import system binds the
# module's name in this package when the module is loaded, so it is loaded here, once, and the
# name is then given to the function for good.
from rasker.delayed import delayed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rasker import config as config
    from rasker.base import (
        annotate,
        compute,
        get_annotations,
        is_dask_collection,
        optimize,
        persist,
        visualize,
    )
    from rasker.core import istask
    from rasker.local import get_sync as get

_HOMES = {
    "annotate": "rasker.base",
    "compute": "rasker.base",
    "get_annotations": "rasker.base",
    "is_dask_collection": "rasker.base",
    "istask": "rasker.core",
    "optimize": "rasker.base",
    "persist": "rasker.base",
    "visualize": "rasker.base",
}

_SUBMODULES = frozenset(
    (
        "base callbacks cli config core diagnostics distributed exceptions graph_manipulation "
        "highlevelgraph local multiprocessing optimization order sizeof task_spec threaded "
        "tokenize typing utils"
    ).split()
)

__all__ = [
    "__version__",
    "annotate",
    "compute",
    "config",
    "delayed",
    "get",
    "get_annotations",
    "is_dask_collection",
    "istask",
    "optimize",
    "persist",
    "visualize",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _SUBMODULES:
        return import_module("rasker." + name)
    if name == "get":
        value = import_module("rasker.local").get_sync
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'rasker' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
