"""Calls out of band: `Client.run` on a worker's executor."""

from __future__ import annotations

import pickle


def answer(call: bytes) -> bytes:
    """Run a pickled ``(function, args, kwargs)``; the pickled ``(ok, result or exception)``."""
    import asyncio
    import inspect

    from rasker._pickle import dumps
    from rasker.utils import has_keyword

    try:
        function, args, kwargs = pickle.loads(call)
        if "dask_worker" not in kwargs and has_keyword(function, "dask_worker"):
            from rasker.distributed import get_worker

            kwargs = {**kwargs, "dask_worker": get_worker()}
        result = function(*args, **kwargs)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        return dumps((True, result))
    except BaseException as error:
        try:
            return dumps((False, error))
        except Exception:
            return dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))


def stacks() -> dict[str, list[str]]:
    """The Python stacks of the tasks that run in this process, by key."""
    import sys
    import traceback

    from rasker._native import running_tasks

    frames = sys._current_frames()
    return {
        key: traceback.format_stack(frames[ident])
        for ident, key in running_tasks()
        if ident in frames
    }
