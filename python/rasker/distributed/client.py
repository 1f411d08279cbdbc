"""`Client`: submit work to a cluster and get results back."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

from rasker.distributed import defaults
from rasker.distributed.awaiting import in_thread
from rasker.distributed.client_collections import ClientCollections
from rasker.distributed.client_queries import ClientQueries
from rasker.distributed.client_work import ClientWork
from rasker.distributed.future import _seconds
from rasker.distributed.not_built import CLIENT_METHODS, not_built
from rasker.typing import no_default


class Client(ClientWork, ClientCollections, ClientQueries):
    """Connect to a cluster, or start one on this computer, and use it.

    The latest client is the default of `rasker.compute` and of all collections.

    Parameters
    ----------
    address : str or LocalCluster, optional
        ``'tcp://host:port'``, or a cluster.  Default: start a `LocalCluster` with `kwargs`.
    loop : object, optional
        Has no meaning here.
    timeout : float or str, seconds, optional
        For connecting.  Default: the configuration key ``distributed.comm.timeouts.connect``.
    set_as_default : bool, default True
        Let collections use this client.
    scheduler_file : str, optional
        The file that ``rasker scheduler --scheduler-file`` has written; it says the address and
        what to trust.
    security : Security, optional
    asynchronous : bool, default False
        For coroutines: methods that wait return awaitables.
    name : str, optional
        Shown by the scheduler.
    heartbeat_interval, serializers, deserializers, extensions, direct_to_workers, connection_limit
        Have no meaning here.
    **kwargs
        For `LocalCluster`.

    Raises
    ------
    TimeoutError
        When called, if the scheduler cannot be reached in time.
    TypeError
        When called, for arguments that are not known.

    Examples
    --------
    >>> from rasker.distributed import Client  # doctest: +SKIP
    >>> with Client(n_workers=2) as client:  # doctest: +SKIP
    ...     futures = client.map(abs, range(-3, 0))
    ...     client.gather(futures)
    [3, 2, 1]
    """

    def __init__(
        self,
        address: Any = None,
        loop: Any = None,
        timeout: Any = no_default,
        set_as_default: bool = True,
        scheduler_file: str | None = None,
        security: Any = None,
        asynchronous: bool = False,
        name: str | None = None,
        heartbeat_interval: Any = None,
        serializers: Any = None,
        deserializers: Any = None,
        extensions: Any = None,
        direct_to_workers: bool | None = None,
        connection_limit: int = 512,
        **kwargs: Any,
    ) -> None:
        from rasker import config

        self._session: Any = None
        self._asynchronous = asynchronous
        self._name = name
        self._set_as_default = set_as_default
        self._timeout = _seconds(
            config.get("distributed.comm.timeouts.connect") if timeout is no_default else timeout
        )
        self.security = security
        self.scheduler_file = scheduler_file
        self.cluster: Any = None
        self._owns_cluster = False
        self._address = address
        self._cluster_arguments = kwargs
        self._tokens: list[Any] = []
        self.status = "connecting"
        if address is None and scheduler_file is None:
            self._address = config.get("scheduler-address", None)
        if kwargs and (self._address is not None or scheduler_file is not None):
            raise TypeError(
                f"Client with an address has no argument {', '.join(map(repr, kwargs))}; "
                "arguments of LocalCluster are for a client that starts one"
            )
        if not asynchronous:
            self._start()

    def _start(self) -> Client:
        if self._session is not None:
            return self
        from rasker import _native
        from rasker._registration import register

        register()
        address = self._address
        if hasattr(address, "_connect"):
            self.cluster = address
            self._session = address._connect(self._name)
        elif address is not None or self.scheduler_file is not None:
            self._session = self._connect(_native)
        else:
            from rasker.distributed.local_cluster import LocalCluster

            self.cluster = LocalCluster(security=self.security, **self._cluster_arguments)
            self._owns_cluster = True
            self._session = self.cluster._connect(self._name)
        self.status = "running"
        defaults.add(self, self._set_as_default)
        _close_at_exit(self)
        return self

    def _connect(self, native: Any) -> Any:
        from rasker.distributed.security import Security

        trust = (self.security or Security())._connection()
        address = self._address
        if self.scheduler_file is not None:
            address = f"file://{self.scheduler_file}"
        elif not isinstance(address, str):
            address = getattr(address, "scheduler_address", None)
            if address is None:
                raise TypeError(
                    f"address must be a str or a cluster, not {type(self._address).__name__}"
                )
        elif "://" not in address:
            address = f"tcp://{address}"
        return native.connect(address, name=self._name, timeout=self._timeout, **trust)

    def start(self, **kwargs: Any) -> Any:
        """Connect, if that has not been done; needed only with ``asynchronous=True``."""
        return in_thread(self._start) if self._asynchronous else self._start()

    def close(self, timeout: Any = no_default) -> Any:
        """End the connection, and the cluster if this client has started it.

        Futures of this client that have no result are cancelled.

        Parameters
        ----------
        timeout : float or str, seconds, optional
        """
        seconds = None if timeout is no_default else _seconds(timeout)
        if self._asynchronous:
            return in_thread(self._close, seconds)
        return self._close(seconds)

    def _close(self, timeout: float | None = None) -> None:
        if self.status == "closed":
            return
        self.status = "closed"
        defaults.remove(self)
        if self._session is not None:
            self._session.close(timeout)
        if self._owns_cluster:
            self.cluster._close(timeout)

    def shutdown(self) -> Any:
        """End the connection and the cluster that it is to.

        Raises
        ------
        NotImplementedError
            If the cluster was not started by this process.
        """
        if self.cluster is None:
            not_built("Client.shutdown of a cluster that others have started", "stop its processes")
        self._owns_cluster = True
        return self.close()

    def __enter__(self) -> Client:
        if self._asynchronous:
            raise RuntimeError("client is asynchronous; use `async with`")
        self._tokens.append(defaults.push(self) if self._set_as_default else None)
        return self

    def __exit__(self, *exc: object) -> None:
        token = self._tokens.pop()
        if token is not None:
            defaults.pop(token)
        self._close()

    def __await__(self) -> Any:
        async def start() -> Client:
            await in_thread(self._start)
            return self

        return start().__await__()

    async def __aenter__(self) -> Client:
        await self
        self._tokens.append(defaults.push(self) if self._set_as_default else None)
        return self

    async def __aexit__(self, *exc: object) -> None:
        token = self._tokens.pop()
        if token is not None:
            defaults.pop(token)
        await in_thread(self._close)

    def as_current(self) -> Any:
        """Make this client the current one inside a ``with`` block."""
        return _AsCurrent(self)

    @classmethod
    def current(cls, allow_global: bool = True) -> Client:
        """The current client.

        Parameters
        ----------
        allow_global : bool, default True
            Also the default of the process, not only that of a ``with`` block or a task.

        Raises
        ------
        ValueError
            If there is none.
        """
        return defaults.default_client(defaults.current_client(allow_global))

    @property
    def asynchronous(self) -> bool:
        """True if methods that wait return awaitables."""
        return self._asynchronous

    @property
    def id(self) -> str:
        """The name of this client on the scheduler."""
        return self._session.id if self._session is not None else ""

    @property
    def loop(self) -> None:
        """None: no event loop of Python runs the client."""
        return None

    @property
    def dashboard_link(self) -> str:
        """Not built yet."""
        return not_built("the dashboard", "use progress() and client.scheduler_info()")

    def _do(self, func: Callable[..., Any], *args: Any, asynchronous: Any = None) -> Any:
        """Call a function that waits; in a thread and awaitable if the client is asynchronous."""
        if self._asynchronous if asynchronous is None else asynchronous:
            return in_thread(func, *args)
        return func(*args)

    def sync(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a coroutine function and return its result; also plain functions."""
        import asyncio
        import inspect

        kwargs.pop("asynchronous", None)
        kwargs.pop("callback_timeout", None)
        made = func(*args, **kwargs)
        if not inspect.isawaitable(made) or self._asynchronous:
            return made

        async def run() -> Any:
            return await made

        return asyncio.run(run())

    def __getattr__(self, name: str) -> Any:
        # Reached only for names that are not defined.
        if name in CLIENT_METHODS:

            def later(*args: Any, **kwargs: Any) -> Any:
                not_built(f"Client.{name}", CLIENT_METHODS[name])

            later.__name__ = name
            return later
        raise AttributeError(f"Client has no attribute {name!r}")

    def __dir__(self) -> Iterable[str]:
        return sorted({*object.__dir__(self), *CLIENT_METHODS})

    def __reduce__(self) -> Any:
        # A task that carries its client means the cluster it runs on.
        from rasker.distributed.worker_context import client_for

        return (client_for, (self._session.address,))

    def __repr__(self) -> str:
        from rasker.distributed.representations import client_text

        return client_text(self)

    def _repr_html_(self) -> str:
        from rasker.distributed.representations import client_html

        return client_html(self)


class _AsCurrent:
    """What `Client.as_current` returns."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._tokens: list[Any] = []

    def __enter__(self) -> Client:
        self._tokens.append(defaults.push(self._client))
        return self._client

    def __exit__(self, *exc: object) -> None:
        defaults.pop(self._tokens.pop())


_open: Any = None


def _close_at_exit(client: Client) -> None:
    """Close clients that are still open when the interpreter ends."""
    global _open
    if _open is None:
        import atexit
        import weakref

        _open = weakref.WeakSet()
        atexit.register(_close_all)
    _open.add(client)


def _close_all() -> None:
    for client in list(_open):
        client._close(1.0)
