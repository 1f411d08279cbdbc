"""Running a graph on threads of this process: the default of `compute`.

The engine is started on first use, with one worker whose threads run Python, and kept for the life
of the process.
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
    cache: Any = None,
    num_workers: int | None = None,
    pool: Any = None,
    **kwargs: Any,
) -> Any:
    """Run a graph on threads.

    Parameters
    ----------
    dsk : mapping
        The graph.
    keys : key or nested list of keys
    cache : mapping, optional
        Values that are there already.
    num_workers : int, optional
        How many threads.  Default: the configuration key ``num-workers``, else one per core.
    pool : concurrent.futures.Executor, optional
        Where to run instead.

    Returns
    -------
    object
        The value, or nested tuples of values.

    Examples
    --------
    >>> get({"x": 1, "y": (sum, ["x", "x"])}, "y")  # doctest: +SKIP
    2
    """
    if cache:
        from rasker.core import literal

        dsk = {**dsk, **{k: (literal(v),) for k, v in cache.items()}}
    if pool is not None:
        return executor_scheduler(pool, num_workers)(dsk, keys, **kwargs)

    return get_on_engine(False, dsk, keys, num_workers=num_workers, **kwargs)


def _run(lower: Any, keys: list[Any], **kwargs: Any) -> list[Any]:
    pool = kwargs.pop("pool", None)
    if pool is None:
        from rasker import config

        pool = config.get("pool", None)
    if pool is not None and not isinstance(pool, int):
        run = executor_scheduler(pool).rasker_runner  # type: ignore[attr-defined]
        return run(lower, keys, **kwargs)  # type: ignore[no-any-return]
    return run_on_engine(False, lower, keys, **kwargs)


get.rasker_runner = _run  # type: ignore[attr-defined]
