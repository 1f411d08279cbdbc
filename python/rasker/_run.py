"""Calls out of band: `Client.run` on a worker's executor."""

from __future__ import annotations

import pickle


def answer(call: bytes) -> bytes:
    """Run a pickled ``(function, args, kwargs)``; the pickled ``(ok, result or exception)``."""
    import asyncio
    import inspect

    from rasker._pickle import dumps

    try:
        function, args, kwargs = pickle.loads(call)
        if "dask_worker" in inspect.signature(function).parameters and "dask_worker" not in kwargs:
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
