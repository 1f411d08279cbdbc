"""Running a graph on processes of this machine.

The engine is started on first use, with single-threaded executor processes, and kept for the life
of the process that asked.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

from rasker._engine import get_on_engine, run_on_engine
from rasker.local import CPU_COUNT as CPU_COUNT
from rasker.local import executor_scheduler

__all__ = ["CPU_COUNT", "get"]


def get(
    dsk: Mapping[Any, Any],
    keys: Any,
    num_workers: int | None = None,
    pool: Any = None,
    **kwargs: Any,
) -> Any:
    """Run a graph on processes.

    Parameters
    ----------
    dsk : mapping
        The graph; functions and values must be such that cloudpickle can write them.
    keys : key or nested list of keys
    num_workers : int, optional
        How many processes.  Default: the configuration key ``num-workers``, else one per core.
    pool : concurrent.futures.Executor, optional
        Where to run instead.

    Returns
    -------
    object
        The value, or nested tuples of values.
    """
    if pool is not None:
        return executor_scheduler(pool, num_workers)(dsk, keys, **kwargs)
    return get_on_engine(True, dsk, keys, num_workers=num_workers, **kwargs)


def _run(lower: Any, keys: list[Any], **kwargs: Any) -> list[Any]:
    pool = kwargs.pop("pool", None)
    if pool is not None:
        run = executor_scheduler(pool).rasker_runner  # type: ignore[attr-defined]
        return run(lower, keys, **kwargs)  # type: ignore[no-any-return]
    return run_on_engine(True, lower, keys, **kwargs)


get.rasker_runner = _run  # type: ignore[attr-defined]
