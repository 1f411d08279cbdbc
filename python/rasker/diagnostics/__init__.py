"""Looking at local computations: `ProgressBar`, `Profiler`, `ResourceProfiler`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rasker.diagnostics.profile import CacheProfiler, Profiler, ResourceProfiler, visualize
    from rasker.diagnostics.progress import ProgressBar

__all__ = ["CacheProfiler", "Profiler", "ProgressBar", "ResourceProfiler", "visualize"]

_HOMES = {
    "CacheProfiler": "profile",
    "Profiler": "profile",
    "ProgressBar": "progress",
    "ResourceProfiler": "profile",
    "visualize": "profile",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'rasker.diagnostics' has no attribute {name!r}")
    value = getattr(import_module(f"rasker.diagnostics.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
