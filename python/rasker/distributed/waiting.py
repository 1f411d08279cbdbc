"""Waiting for futures: `wait`, `as_completed`, `fire_and_forget`, `futures_of`."""

from __future__ import annotations

import threading
from collections import deque, namedtuple
from functools import partial
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

from rasker.distributed import defaults
from rasker.distributed.awaiting import in_thread
from rasker.distributed.future import Future, _seconds
from rasker.distributed.future_list import FutureList, handles_of
from rasker.exceptions import CancelledError

ALL_COMPLETED = "ALL_COMPLETED"
FIRST_COMPLETED = "FIRST_COMPLETED"

DoneAndNotDoneFutures = namedtuple("DoneAndNotDoneFutures", ["done", "not_done"])


def _session_of(futures: Any) -> Any:
    if isinstance(futures, FutureList):
        return futures.session
    for f in futures:
        return f.session
    return None


def wait(fs: Any, timeout: Any = None, return_when: str = ALL_COMPLETED) -> Any:
    """Wait until futures have ended.

    Parameters
    ----------
    fs : future or sequence of futures, or collections that hold futures
    timeout : float or str, seconds, optional
        Default: wait for ever.
    return_when : {'ALL_COMPLETED', 'FIRST_COMPLETED'}, default 'ALL_COMPLETED'

    Returns
    -------
    DoneAndNotDoneFutures
        A named tuple of two sets, ``done`` and ``not_done``; with an asynchronous client an
        awaitable of it.

    Raises
    ------
    TimeoutError
        If it takes longer.
    CancelledError
        If one of them was cancelled.

    Examples
    --------
    >>> done, not_done = wait(client.map(abs, range(3)))  # doctest: +SKIP
    """
    if return_when not in (ALL_COMPLETED, FIRST_COMPLETED):
        raise NotImplementedError(
            f"return_when={return_when!r} is not built; use 'ALL_COMPLETED' or 'FIRST_COMPLETED', "
            "or as_completed with raise_errors=True to stop at the first error"
        )
    if isinstance(fs, Future):
        fs = [fs]
    elif not isinstance(fs, FutureList):
        fs = futures_of(fs)
    seconds = _seconds(timeout)
    session = _session_of(fs)
    client = defaults.client_of(session) if session is not None else None
    if client is not None and client.asynchronous:
        return in_thread(_wait, fs, session, seconds, return_when)
    return _wait(fs, session, seconds, return_when)


def _wait(fs: Any, session: Any, timeout: float | None, return_when: str) -> Any:
    if not len(fs):
        return DoneAndNotDoneFutures(set(), set())
    count = len(fs) if return_when == ALL_COMPLETED else 1
    if not session.wait(handles_of(fs), count, timeout):
        raise TimeoutError(f"{len(fs)} futures did not end in {timeout} s ({return_when})")
    done: set[Any] = set()
    not_done: set[Any] = set()
    cancelled = []
    for f in fs:
        status = f.status
        if status == "cancelled":
            cancelled.append(f.key)
        (not_done if status == "pending" else done).add(f)
    if cancelled:
        raise CancelledError(f"{len(cancelled)} futures were cancelled: {cancelled[:5]}")
    return DoneAndNotDoneFutures(done, not_done)


class as_completed:  # noqa: N801 - Dask's public name
    """Futures in the order in which they end; an iterator and an asynchronous iterator.

    Parameters
    ----------
    futures : iterable of futures, optional
    loop : object, optional
        Has no meaning here.
    with_results : bool, default False
        Give pairs of future and result.
    raise_errors : bool, default True
        With results: raise the exception of a failed task; if False the result is a tuple of
        its type, itself and its traceback.
    timeout : float or str, seconds, optional
        From now on; then iteration raises TimeoutError.

    Examples
    --------
    >>> for future in as_completed(client.map(abs, range(3))):  # doctest: +SKIP
    ...     print(future.result())
    """

    def __init__(
        self,
        futures: Any = None,
        loop: Any = None,
        with_results: bool = False,
        raise_errors: bool = True,
        *,
        timeout: Any = None,
    ) -> None:
        self.with_results = with_results
        self.raise_errors = raise_errors
        self._condition = threading.Condition()
        self._ended: deque[Any] = deque()
        self._pending = 0
        self._generation = 0
        self._wakers: list[Any] = []
        seconds = _seconds(timeout)
        self._deadline = None if seconds is None else monotonic() + seconds
        if futures is not None:
            self.update(futures)

    @property
    def condition(self) -> threading.Condition:
        """Guards the state, and is notified when a future ends."""
        return self._condition

    def add(self, future: Any) -> None:
        """Take one more future, also while iterating."""
        self.update((future,))

    def update(self, futures: Iterable[Any]) -> None:
        """Take more futures, also while iterating."""
        for f in futures:
            if not isinstance(f, Future):
                raise TypeError(f"as_completed takes futures, not {type(f).__name__}")
            with self._condition:
                self._pending += 1
                generation = self._generation
            f.add_callback(partial(self._on_end, f, generation))

    def _on_end(self, future: Any, generation: int) -> None:
        with self._condition:
            if generation != self._generation:
                return  # cleared since
            self._pending -= 1
            self._ended.append(future)
            self._condition.notify()
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    def is_empty(self) -> bool:
        """True if no future is left, ended or not."""
        with self._condition:
            return not self._pending and not self._ended

    def has_ready(self) -> bool:
        """True if a future has ended and was not given yet."""
        with self._condition:
            return bool(self._ended)

    def count(self) -> int:
        """How many futures are left, ended or not."""
        with self._condition:
            return self._pending + len(self._ended)

    def clear(self) -> None:
        """Forget all futures that are left."""
        with self._condition:
            self._generation += 1
            self._pending = 0
            self._ended.clear()
            self._condition.notify_all()

    def _left(self) -> float | None:
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - monotonic())

    def _timed_out(self) -> TimeoutError:
        return TimeoutError(f"as_completed ran out of time with {self._pending} futures pending")

    def _take(self) -> Any:
        with self._condition:
            while not self._ended:
                if not self._pending:
                    raise StopIteration
                if not self._condition.wait(self._left()) and not self._ended:
                    raise self._timed_out()
            return self._ended.popleft()

    def _present(self, future: Any) -> Any:
        """What the iteration gives for a future that has ended."""
        if not self.with_results:
            return future
        if future.cancelled():
            error: BaseException | None = CancelledError(f"task {future.key!r} was cancelled")
        else:
            error = future.failure(None)
        if error is None:
            return future, future.value(None)
        if self.raise_errors:
            raise error
        return future, (type(error), error, error.__traceback__)

    def __iter__(self) -> as_completed:
        return self

    def __next__(self) -> Any:
        return self._present(self._take())

    def next(self) -> Any:
        """The next future that ends; waits for it.

        Raises
        ------
        StopIteration
            If none is left.
        """
        return next(self)

    def next_batch(self, block: bool = True) -> list[Any]:
        """All futures that have ended and were not given yet.

        Parameters
        ----------
        block : bool, default True
            Wait until there is at least one.

        Raises
        ------
        StopIteration
            If `block` and none is left.
        """
        first = [self._take()] if block else []
        with self._condition:
            first.extend(self._ended)
            self._ended.clear()
        return [self._present(f) for f in first]

    def batches(self) -> Iterator[list[Any]]:
        """Iterate over lists of all futures that have ended meanwhile."""
        while True:
            try:
                yield self.next_batch(block=True)
            except StopIteration:
                return

    def __aiter__(self) -> as_completed:
        return self

    async def _ready(self) -> bool:
        """Wait until a future has ended; False if none is left."""
        import asyncio

        loop = asyncio.get_running_loop()
        while True:
            event = asyncio.Event()
            with self._condition:
                if self._ended:
                    return True
                if not self._pending:
                    return False
                self._wakers.append(partial(loop.call_soon_threadsafe, event.set))
            try:
                await asyncio.wait_for(event.wait(), self._left())
            except asyncio.TimeoutError:
                raise self._timed_out() from None

    async def __anext__(self) -> Any:
        if not await self._ready():
            raise StopAsyncIteration
        with self._condition:
            future = self._ended.popleft()
        if not self.with_results:
            return future
        return await in_thread(self._present, future)


_kept: dict[int, Any] = {}
_numbers = iter(range(1, 1 << 62))


def fire_and_forget(obj: Any) -> None:
    """Let tasks run to their end though nobody holds their futures.

    Parameters
    ----------
    obj : future, or container or collection with futures

    Notes
    -----
    The tasks belong to their client: closing it ends them.
    """
    for future in futures_of(obj):
        number = next(_numbers)
        _kept[number] = future

        def let_go(number: int = number) -> None:
            _kept.pop(number, None)

        future.add_callback(let_go)


def futures_of(o: Any, client: Any = None) -> list[Any]:
    """The futures inside containers and collections.

    Parameters
    ----------
    o : object
        A future, a list, tuple, set, dict or collection.
    client : Client, optional
        Only futures of this client.

    Returns
    -------
    list of Future
        Each once.

    Raises
    ------
    CancelledError
        If one of them was cancelled.
    """
    found: dict[Any, Any] = {}
    stack = [o]
    while stack:
        x = stack.pop()
        if isinstance(x, Future):
            found[x.key] = x
        elif isinstance(x, (list, tuple, set, frozenset, FutureList)) or hasattr(x, "__next__"):
            stack.extend(reversed(list(x)))
        elif isinstance(x, dict):
            stack.extend(reversed(list(x.values())))
        elif not isinstance(x, type) and hasattr(x, "__dask_graph__"):
            stack.extend(dict(x.__dask_graph__()).values())
    futures = list(found.values())
    if client is not None:
        futures = [f for f in futures if f.session.id == client._session.id]
    cancelled = [f.key for f in futures if f.cancelled()]
    if cancelled:
        raise CancelledError(f"{len(cancelled)} futures were cancelled: {cancelled[:5]}")
    return futures
