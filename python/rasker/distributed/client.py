"""`Client`: submit work to a cluster and get results back."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from typing import Any

from rasker.annotations import make_options, worker_list
from rasker.distributed import defaults
from rasker.distributed.awaiting import in_thread
from rasker.distributed.client_collections import ClientCollections
from rasker.distributed.client_queries import ClientQueries
from rasker.distributed.future import Future, _seconds
from rasker.distributed.future_list import FutureList, handles_of
from rasker.distributed.not_built import CLIENT_METHODS, not_built
from rasker.typing import no_default


class Client(ClientCollections, ClientQueries):
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

    # ------------------------------------------------------------------ life

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

    # ------------------------------------------------------------------ work

    def submit(
        self,
        func: Callable[..., Any],
        *args: Any,
        key: Any = None,
        workers: Any = None,
        resources: Any = None,
        retries: int | None = None,
        priority: float = 0,
        fifo_timeout: Any = "100 ms",
        allow_other_workers: bool = False,
        actor: bool = False,
        actors: bool = False,
        pure: bool = True,
        **kwargs: Any,
    ) -> Future:
        """Run ``func(*args, **kwargs)`` on the cluster.

        Parameters
        ----------
        func : callable
        *args, **kwargs
            Arguments.  Futures among them, also inside lists, tuples, sets and dicts, stand for
            their results.
        key : str, optional
            The name of the task.  Default: made from the function and the arguments.
        workers : str or list of str, optional
            Addresses, names or hosts of workers that may run it.
        resources : dict of str to float, optional
            What a worker must have free.
        retries : int, optional
            How many times it is tried again after an exception.
        priority : float, default 0
            Higher runs earlier.
        fifo_timeout : str, optional
            Has no meaning here: tasks are ordered by priority, then by age.
        allow_other_workers : bool, default False
            Make `workers` a preference.
        actor, actors : bool
            Not built yet.
        pure : bool, default True
            Equal calls share a task; False for functions with effects or randomness.

        Returns
        -------
        Future
            At once.

        Raises
        ------
        TypeError
            When called, if `func` is not callable, or an argument cannot be pickled.

        Examples
        --------
        >>> client.submit(sum, [1, 2]).result()  # doctest: +SKIP
        3
        """
        if not callable(func):
            raise TypeError(f"func must be callable, not {type(func).__name__}; args come after it")
        if actor or actors:
            not_built("submit(…, actor=True)", "keep state in the values that tasks return")
        options = None
        if workers is not None or resources or retries or priority or not pure:
            options = make_options(
                priority=priority,
                retries=retries,
                workers=workers,
                allow_other_workers=allow_other_workers,
                resources=resources,
                pure=pure,
            )
        elif allow_other_workers:
            raise ValueError("allow_other_workers=True has no meaning without workers=")
        made: Future = self._session.submit(func, args, kwargs or None, key, options)
        return made

    def map(
        self,
        func: Callable[..., Any],
        *iterables: Collection[Any],
        key: str | list[Any] | None = None,
        workers: Any = None,
        retries: int | None = None,
        resources: Any = None,
        priority: float = 0,
        allow_other_workers: bool = False,
        fifo_timeout: Any = "100 ms",
        actor: bool = False,
        actors: bool = False,
        pure: bool = True,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> FutureList:
        """Run `func` on each item of an iterable, or on the items of several side by side.

        Parameters
        ----------
        func : callable
        *iterables : iterable
            Lists, ranges, futures, iterators; the shortest ends it.  A range is sent as a range.
        key : str or list, optional
            The first part of the keys, or all keys.
        batch_size : int, optional
            Has no meaning here: tasks travel in batches anyway.
        workers, retries, resources, priority, allow_other_workers, pure
            As for `submit`.
        **kwargs
            The same for each call.

        Returns
        -------
        FutureList
            At once; a list of futures named ``name-token-i``.

        Raises
        ------
        TypeError
            When called, if `func` is not callable or there is no iterable.
        ValueError
            When called, if a list of keys has another length than the iterables.

        Examples
        --------
        >>> client.gather(client.map(pow, [2, 3], [10, 2]))  # doctest: +SKIP
        [1024, 9]
        """
        if not callable(func):
            raise TypeError(f"func must be callable, not {type(func).__name__}")
        if actor or actors:
            not_built("map(…, actor=True)", "keep state in the values that tasks return")
        if not iterables:
            raise TypeError("map needs at least one iterable")
        options = make_options(
            priority=priority,
            retries=retries,
            workers=workers,
            allow_other_workers=allow_other_workers,
            resources=resources,
            pure=pure,
        )
        if isinstance(key, (list, tuple, set)):
            key = list(key)
            iterables = tuple([x if hasattr(x, "__len__") else list(x) for x in iterables])
            n = min([len(x) for x in iterables])
            if len(key) != n:
                raise ValueError(f"map has {n} calls and {len(key)} keys; give a key for each")
        parts = tuple([handles_of(x) if isinstance(x, FutureList) else x for x in iterables])
        made: FutureList = self._session.map(func, parts, kwargs or None, key, options)
        return made

    def gather(
        self, futures: Any, errors: str = "raise", direct: Any = None, asynchronous: Any = None
    ) -> Any:
        """Wait for results and bring them here.

        Parameters
        ----------
        futures : future, or nested lists, tuples, sets and dicts of futures
        errors : {'raise', 'skip'}, default 'raise'
            Raise the exception of a failed task, or leave its result out.
        direct : bool, optional
            Has no meaning here.

        Returns
        -------
        object
            Results in the nesting of `futures`.  A lazy list gives a list.

        Raises
        ------
        Exception
            What a task raised.
        CancelledError
            If a task was cancelled.

        Examples
        --------
        >>> client.gather({"x": client.submit(abs, -1)})  # doctest: +SKIP
        {'x': 1}
        """
        if errors not in ("raise", "skip"):
            raise ValueError(f"errors must be 'raise' or 'skip', not {errors!r}")
        return self._do(self._gather, futures, errors == "skip", asynchronous=asynchronous)

    def _gather(self, futures: Any, skip: bool) -> Any:
        if isinstance(futures, FutureList):
            return self._session.values(handles_of(futures), skip, None)
        if isinstance(futures, Future):
            values = self._session.values([futures], skip, None)
            return values[0] if values else None
        if type(futures) is list and all([isinstance(f, Future) for f in futures]):
            return self._session.values(futures, skip, None)
        return self._gather_nested(futures, skip)

    def _gather_nested(self, futures: Any, skip: bool) -> Any:
        from rasker.distributed.nesting import collect_futures, put_values

        if hasattr(futures, "__next__"):
            futures = list(futures)
        found = collect_futures(futures)
        values: dict[Any, Any]
        if skip:
            self._session.wait(found, len(found), None)
            found = [f for f in found if f.status == "finished"]
        values = dict(zip(found, self._session.values(found, False, None), strict=True))
        return put_values(futures, values)

    def scatter(
        self,
        data: Any,
        workers: Any = None,
        broadcast: bool = False,
        direct: Any = None,
        hash: bool = True,
        timeout: Any = no_default,
        asynchronous: Any = None,
    ) -> Any:
        """Send values to the cluster, to be used by many tasks.

        Parameters
        ----------
        data : list, tuple, set, dict, iterator or object
            A container sends its items; anything else is one value.
        workers : str or list of str, optional
            Where to.
        broadcast : bool, default False
            To all workers, or all of `workers`.
        direct : bool, optional
            Has no meaning here.
        hash : bool, default True
            Name values by their content, so that equal ones are sent once.
        timeout : float or str, seconds, optional

        Returns
        -------
        Future, or list, tuple, set or dict of futures
            In the shape of `data`; for a dict the keys of the tasks are the keys of the dict.

        Examples
        --------
        >>> x, y = client.scatter([1, 2])  # doctest: +SKIP
        """
        seconds = None if timeout is no_default else _seconds(timeout)
        return self._do(
            self._scatter, data, workers, broadcast, hash, seconds, asynchronous=asynchronous
        )

    def _scatter(
        self, data: Any, workers: Any, broadcast: bool, hash: bool, timeout: float | None
    ) -> Any:
        kind = type(data)
        many = kind in (list, tuple, set, frozenset, dict, range) or hasattr(kind, "__next__")
        if kind is dict:
            keys, values = list(data), list(data.values())
        else:
            values = list(data) if many else [data]
            keys = [_name_of(v, hash) for v in values]
        names = worker_list(workers)
        futures = self._session.scatter(values, keys, names, broadcast, timeout)
        if kind is dict:
            return dict(zip(keys, futures, strict=True))
        if not many:
            return futures[0]
        return kind(futures) if kind in (tuple, set, frozenset) else list(futures)

    def cancel(
        self,
        futures: Any,
        asynchronous: Any = None,
        force: bool = False,
        reason: str | None = None,
        msg: str | None = None,
    ) -> Any:
        """Cancel tasks that no other client wants.

        Parameters
        ----------
        futures : future, collection or nested containers of them
        force : bool, default False
            Also tasks that another client wants: not built yet.
        reason, msg : str, optional
            Shown to who waits for a result.
        """
        if force:
            not_built("cancel(…, force=True)", "cancel in each client")
        text = ": ".join([t for t in (reason, msg) if t]) or "cancelled by its client"
        found = self.futures_of(futures)
        return self._do(self._session.cancel, found, text, asynchronous=asynchronous)

    def retry(self, futures: Any, asynchronous: Any = None) -> Any:
        """Run failed tasks again.

        Parameters
        ----------
        futures : future, collection or nested containers of them
        """
        found = self.futures_of(futures)
        return self._do(self._session.retry, found, asynchronous=asynchronous)

    def futures_of(self, futures: Any) -> list[Future]:
        """The futures of this client inside containers and collections."""
        from rasker.distributed.waiting import futures_of

        return futures_of(futures, client=self)

    def get_executor(self, **kwargs: Any) -> Any:
        """A `concurrent.futures.Executor` over this client.

        Parameters
        ----------
        **kwargs
            Arguments of `submit` for all its tasks: `priority`, `retries`, `workers`, `resources`,
            `allow_other_workers`, `pure`, `fifo_timeout`.
        """
        from rasker.distributed.executor import ClientExecutor

        return ClientExecutor(self, **kwargs)

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


def _name_of(value: Any, hash: bool) -> str:
    from rasker.tokenize import tokenize
    from rasker.utils import typename

    name = typename(type(value)).rpartition(".")[2]
    if hash:
        return f"{name}-{tokenize(value)}"
    import uuid

    return f"{name}-{uuid.uuid4().hex}"


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
