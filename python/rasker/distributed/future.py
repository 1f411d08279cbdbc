"""`Future`: a client's handle on one task."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType
    from typing import Any

from rasker._native import Handle
from rasker.distributed import defaults
from rasker.distributed.awaiting import ended
from rasker.utils import parse_timedelta


def _seconds(timeout: Any) -> float | None:
    if timeout is None or type(timeout) in (int, float):
        return timeout  # type: ignore[no-any-return]
    return parse_timedelta(timeout)  # type: ignore[no-any-return]


class Future(Handle):  # type: ignore[type-arg]
    """A result that is, or will be, on the cluster.

    `Client.submit`, `map`, `scatter` and `compute` make futures.  A future is a valid argument of
    other tasks, also inside lists, tuples, sets and dicts.  When the last future of a task is gone
    the cluster may forget its result.

    Parameters
    ----------
    key : key
        The name of a task that the scheduler knows.
    client : Client, optional
        Default: the current one.

    Examples
    --------
    >>> from rasker.distributed import Client  # doctest: +SKIP
    >>> with Client() as client:  # doctest: +SKIP
    ...     future = client.submit(sum, [1, 2])
    ...     future.result()
    3
    """

    if TYPE_CHECKING:
        session: Any

    def __new__(cls, key: Any, client: Any = None) -> Any:
        return defaults.default_client(client)._session.adopt(key)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # `__new__` has returned a finished object.
        return

    @property
    def client(self) -> Any:
        """The client that holds this future; None after it is gone."""
        return defaults.client_of(self.session)

    @property
    def executor(self) -> Any:
        """The client that holds this future."""
        return self.client

    @property
    def _is_asynchronous(self) -> bool:
        if not defaults.n_asynchronous:
            return False
        client = defaults.client_of(self.session)
        return client is not None and client.asynchronous

    def result(self, timeout: Any = None) -> Any:
        """Wait for the result.

        Parameters
        ----------
        timeout : float or str, seconds, optional
            Default: wait for ever.

        Returns
        -------
        object
            The result; with an asynchronous client an awaitable of it.

        Raises
        ------
        TimeoutError
            If it takes longer.
        CancelledError
            If the task was cancelled.
        Exception
            What the task raised, with the traceback of the task chained to this one.
        """
        if defaults.n_asynchronous and self._is_asynchronous:
            return self._result_soon(_seconds(timeout))
        if timeout is not None:
            timeout = _seconds(timeout)
        return self.value(timeout)

    async def _result_soon(self, timeout: float | None = None) -> Any:
        from rasker.distributed.awaiting import in_thread

        await ended(self, timeout)
        # The task has ended; what is left is to fetch the value, which may take a while.
        return await in_thread(self.value, None)

    def exception(self, timeout: Any = None, **kwargs: Any) -> Any:
        """The exception of a failed task; None if it succeeded.

        Parameters
        ----------
        timeout : float or str, seconds, optional

        Raises
        ------
        TimeoutError, CancelledError
            As for `result`.
        """
        if self._is_asynchronous:
            return self._exception_soon(_seconds(timeout))
        return self.failure(_seconds(timeout))

    async def _exception_soon(self, timeout: float | None) -> BaseException | None:
        from rasker.distributed.awaiting import in_thread

        await ended(self, timeout)
        error: BaseException | None = await in_thread(self.failure, None)
        return error

    def traceback(self, timeout: Any = None, **kwargs: Any) -> Any:
        """The traceback of a failed task; None if it succeeded.

        Returns
        -------
        types.TracebackType or None
            For the module `traceback`.
        """
        if self._is_asynchronous:
            return self._traceback_soon(_seconds(timeout))
        error = self.failure(_seconds(timeout))
        return None if error is None else error.__traceback__

    async def _traceback_soon(self, timeout: float | None) -> TracebackType | None:
        error = await self._exception_soon(timeout)
        return None if error is None else error.__traceback__

    def cancel(self, reason: str | None = None, msg: str | None = None, **kwargs: Any) -> Any:
        """Cancel the task, unless another client wants it.

        Parameters
        ----------
        reason, msg : str, optional
            Shown to who waits for the result.
        """
        text = ": ".join([t for t in (reason, msg) if t]) or "cancelled by its client"
        if self._is_asynchronous:
            from rasker.distributed.awaiting import in_thread

            return in_thread(self.session.cancel, [self], text)
        self.session.cancel([self], text)
        return None

    def retry(self, **kwargs: Any) -> Any:
        """Run a failed task again."""
        if self._is_asynchronous:
            from rasker.distributed.awaiting import in_thread

            return in_thread(self.session.retry, [self])
        self.session.retry([self])
        return None

    def add_done_callback(self, fn: Callable[[Future], Any]) -> None:
        """Call ``fn(future)`` when the task has ended, however it ended.

        The call is made in a thread of the client, or at once if the task has ended already.  What
        `fn` raises is logged.
        """
        self.add_callback(lambda: _call_back(fn, self))

    def bind_client(self, client: Any) -> None:
        """Futures are bound to a client from the start; a different one is refused.

        Raises
        ------
        ValueError
            If `client` is not the one that holds this future.
        """
        if client._session.id != self.session.id:
            raise ValueError(
                f"future {self.key!r} is held by another client; make one for this client with "
                "Future(key, client)"
            )

    def substitute(self, subs: Any, key: Any = None) -> Any:
        """The future itself: it depends on no key of a graph."""
        return self

    @property
    def type(self) -> Any:
        """The type of the result once it is there, else None; this fetches the result."""
        return type(self.value(None)) if self.status == "finished" else None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._result_soon().__await__()

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Future)
            and self.key == other.key
            and self.session.id == other.session.id
        )

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> Any:
        # The hold stays here: who unpickles takes one of its own.
        return (attach, (self.key, self.session.address))

    def __dask_tokenize__(self) -> Any:
        return self.key

    def __repr__(self) -> str:
        return f"<Future: {self.status}, key: {self.key}>"

    def _repr_html_(self) -> str:
        from rasker.distributed.representations import future_html

        return future_html(self)


class NativeFuture(Future):
    """What the extension module makes: a `Future` whose construction runs no Python.

    The engine makes millions of these without arguments; `Future` itself takes a key.
    """

    __new__ = Handle.__new__  # type: ignore[assignment]
    __init__ = object.__init__


NativeFuture.__name__ = NativeFuture.__qualname__ = "Future"


def _call_back(fn: Callable[[Future], Any], future: Future) -> None:
    try:
        fn(future)
    except Exception:
        import logging

        logging.getLogger("rasker.distributed").exception(
            "callback %r of future %r raised", fn, future.key
        )


def attach(key: Any, address: str) -> Future:
    """A future of this process for a key, after it has travelled by pickle."""
    from rasker.distributed.worker_context import client_for

    return client_for(address)._session.adopt(key)  # type: ignore[no-any-return]
