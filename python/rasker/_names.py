"""Names of functions, as they begin keys."""

from __future__ import annotations

from typing import Any


def funcname(func: Any) -> str:
    """A short name for anything callable, without what would confuse a reader of keys."""
    for _ in range(8):
        if hasattr(func, "func") and not hasattr(func, "__name__"):
            func = func.func
        else:
            break
    name = getattr(func, "__name__", None) or type(func).__name__
    if name == "<lambda>":
        name = "lambda"
    return str(name)[:50]
