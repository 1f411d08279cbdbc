"""Blocking calls of the engine as awaitables.

Each gets a thread of its own.  The pool of asyncio would do until as many calls wait as it has
threads: then a call that the others wait for would never start.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any


def in_thread(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Awaitable[Any]:
    """Run a blocking function in a new thread.

    Returns
    -------
    asyncio.Future
        Of what the function returns.  Cancelling it does not stop the function.
    """
    import asyncio
    import threading
    from contextvars import copy_context

    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = copy_context()

    def deliver(error: BaseException | None, value: Any) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        elif isinstance(error, StopIteration):
            future.set_exception(RuntimeError(str(error)))
        else:
            future.set_exception(error)

    def work() -> None:
        error: BaseException | None = None
        value = None
        try:
            value = context.run(func, *args, **kwargs)
        except BaseException as e:
            error = e
        try:
            loop.call_soon_threadsafe(deliver, error, value)
        except RuntimeError:
            pass  # the loop has closed, so nobody waits any more

    threading.Thread(target=work, daemon=True, name="rasker-await").start()
    return future


async def ended(handle: Any, timeout: float | None = None) -> None:
    """Wait until the task of a handle has ended, without a thread."""
    import asyncio

    if handle.done():
        return
    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(event.set)
        except RuntimeError:
            pass  # the loop has closed, so nobody waits any more

    handle.add_callback(wake)
    try:
        await asyncio.wait_for(event.wait(), timeout)
    except asyncio.TimeoutError:
        raise TimeoutError(f"task {handle.key!r} did not end in {timeout} s") from None
