"""`print` and `warn` for tasks: what they say is also kept as an event of the scheduler."""

from __future__ import annotations

import builtins
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _log(topic: str, message: str) -> None:
    from rasker import _native

    if _native.current_task() is not None:
        from rasker.distributed.worker_context import get_client

        get_client()._session.query("log_event", (topic, message), None)


def print(
    *args: Any, sep: str = " ", end: str = "\n", file: Any = None, flush: bool = False
) -> None:  # noqa: A001
    """Print here, and inside a task also log the text under the topic 'print'.

    Parameters
    ----------
    *args, sep, end, file, flush
        As for the builtin.
    """
    builtins.print(*args, sep=sep, end=end, file=file, flush=flush)
    _log("print", sep.join(map(str, args)))


def warn(
    message: Any, category: Any = UserWarning, stacklevel: int = 1, source: Any = None
) -> None:
    """Warn here, and inside a task also log the text under the topic 'warn'.

    Parameters
    ----------
    message, category, stacklevel, source
        As for `warnings.warn`.
    """
    warnings.warn(message, category, stacklevel + 1, source)
    _log("warn", str(message))
