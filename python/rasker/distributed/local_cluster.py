"""`LocalCluster`: a scheduler and workers on this computer."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

from rasker.distributed.machine import memory_limit_of, memory_shares, shape_of
from rasker.distributed.not_built import not_built

_MEANINGLESS = frozenset(
    (
        "silence_logs dashboard_address worker_dashboard_address services worker_services "
        "service_kwargs blocked_handlers scheduler_kwargs scheduler_sync_interval start ip loop "
        "death_timeout heartbeat_interval nanny"
    ).split()
)


class LocalCluster:
    """A scheduler and workers on this computer.

    Scheduler and workers are threads of this process; Python runs in executor processes, or in
    threads.

    Parameters
    ----------
    name : str, optional
        For people.
    n_workers : int, optional
        Default: one per core on up to four cores, else about the square root of the cores.
    threads_per_worker : int, optional
        Default: the cores shared among the workers.
    processes : bool, default True
        Run Python in processes, which a lock of the interpreter or a crash does not bring to a
        halt; False: in threads of this process.
    host : str, optional
        The interface to listen on, default 127.0.0.1.  Not listened on without processes.
    scheduler_port : int, default 0
        0 takes a free one.
    asynchronous : bool, default False
        For use in coroutines: ``async with LocalCluster(asynchronous=True) as cluster``.
    security : Security, optional
    protocol : str, optional
        'tcp' or 'inproc'; the latter does not listen.
    interface : str, optional
        The name of a network interface instead of `host`.
    memory_limit : int, float or str, bytes, default 'auto'
        Of one worker: 'auto' shares the memory, a float up to 1 is a part of it, '4GiB', 0 for
        none.  Values beyond the share 'distributed.worker.memory.target' go to disk; a task that
        takes all of the memory fails with `TaskOutOfMemory`.  With ``processes=False`` the limit
        holds for values only: a task in a thread of this process cannot be ended.
    local_directory : str, optional
        Where workers spill, in private folders that go with them; default: the configuration key
        'temporary-directory', or the system's folder for temporary files.
    resources : dict of str to float, optional
        What each worker offers.
    preload : list of str, optional
        Modules or files to import in each executor first.
    **worker_kwargs
        Arguments of Dask that have no meaning here raise TypeError, except those about logs and
        dashboards, which are accepted.

    Raises
    ------
    TypeError
        When called, for arguments that are not known.

    Examples
    --------
    >>> from rasker.distributed import Client, LocalCluster  # doctest: +SKIP
    >>> with LocalCluster(n_workers=2) as cluster, Client(cluster) as client:  # doctest: +SKIP
    ...     client.submit(sum, [1, 2]).result()
    3
    """

    def __init__(
        self,
        name: str | None = None,
        n_workers: int | None = None,
        threads_per_worker: int | None = None,
        processes: bool | None = None,
        loop: Any = None,
        start: bool | None = None,
        host: str | None = None,
        ip: str | None = None,
        scheduler_port: int = 0,
        silence_logs: Any = 30,
        dashboard_address: str | None = ":8787",
        worker_dashboard_address: str | None = None,
        services: Any = None,
        worker_services: Any = None,
        service_kwargs: Any = None,
        asynchronous: bool = False,
        security: Any = None,
        protocol: str | None = None,
        blocked_handlers: Any = None,
        interface: str | None = None,
        worker_class: Any = None,
        scheduler_kwargs: Any = None,
        scheduler_sync_interval: Any = 1,
        *,
        memory_limit: Any = "auto",
        local_directory: str | None = None,
        resources: dict[str, float] | None = None,
        preload: Any = (),
        **worker_kwargs: Any,
    ) -> None:
        unknown = [k for k in worker_kwargs if k not in _MEANINGLESS]
        if unknown:
            raise TypeError(f"LocalCluster has no argument {', '.join(map(repr, unknown))}")
        if worker_class is not None:
            not_built("LocalCluster(worker_class=)", "workers are not Python classes here")
        if processes is None:
            processes = not (protocol or "").startswith("inproc")
        self.n_workers, self.threads_per_worker = shape_of(n_workers, threads_per_worker, processes)
        self.processes = processes
        self.asynchronous = asynchronous
        self.security = security
        self.memory_limit = memory_limit_of(memory_limit, self.n_workers)
        if interface is not None:
            host = _address_of(interface)
        self._given_name = name
        from rasker import config

        inproc = (protocol or "").startswith("inproc") or not processes
        listen = None
        if not inproc or host is not None or scheduler_port:
            listen = f"{host or '127.0.0.1'}:{scheduler_port}"
        self._arguments: dict[str, Any] = {
            "n_workers": self.n_workers,
            "threads_per_worker": self.threads_per_worker,
            "processes": processes,
            "memory_limit": self.memory_limit,
            "memory": memory_shares(),
            "name": name,
            "local_directory": local_directory or config.get("temporary-directory", None),
            "resources": resources,
            "listen": listen,
            "preload": [preload] if isinstance(preload, str) else list(preload),
        }
        self._native: Any = None
        self.status = "created"
        if not asynchronous:
            self._start()

    def _start(self) -> LocalCluster:
        if self._native is None:
            from rasker import _native
            from rasker._registration import register

            register()
            self._native = _native.LocalCluster(**self._arguments)
            self.status = "running"
        return self

    def _connect(self, name: str | None = None) -> Any:
        if self.status == "closed":
            raise RuntimeError("cluster is closed; make a new one")
        self._start()
        return self._native.connect(name)

    @property
    def name(self) -> str:
        """The name given, or the address."""
        return self._given_name or self.scheduler_address or "LocalCluster"

    @property
    def scheduler_address(self) -> str:
        """Where the scheduler is: 'tcp://127.0.0.1:port', or 'inproc://…'; '' before the start."""
        return self._native.address if self._native is not None else ""

    @property
    def loop(self) -> None:
        """None: no event loop of Python runs the cluster."""
        return None

    @property
    def dashboard_link(self) -> str:
        """Not built yet."""
        return not_built("the dashboard", "use progress() and client.scheduler_info()")

    @property
    def scheduler_info(self) -> dict[str, Any]:
        """What the scheduler says of itself and its workers."""
        from rasker.distributed.client import Client

        with Client(self, set_as_default=False) as client:
            return client.scheduler_info()  # type: ignore[no-any-return]

    def get_client(self) -> Any:
        """A client of this cluster, which becomes the default."""
        from rasker.distributed.client import Client

        return Client(self, asynchronous=self.asynchronous)

    def wait_for_workers(self, n_workers: int, timeout: float | None = None) -> None:
        """Wait until as many workers have joined.

        Parameters
        ----------
        n_workers : int
        timeout : float or str, seconds, optional

        Raises
        ------
        TimeoutError
            If it takes longer.
        """
        from rasker.distributed.client import Client

        with Client(self, set_as_default=False) as client:
            client.wait_for_workers(n_workers, timeout)

    def close(self, timeout: float | None = None) -> Any:
        """End the workers and the scheduler.

        Parameters
        ----------
        timeout : float, seconds, optional
            How long running tasks may take to end.

        Returns
        -------
        None
            An awaitable of it if the cluster is asynchronous.
        """
        if self.asynchronous:
            from rasker.distributed.awaiting import in_thread

            return in_thread(self._close, timeout)
        return self._close(timeout)

    def _close(self, timeout: float | None = None) -> None:
        if self.status == "running":
            self.status = "closed"
            self._native.close(timeout)
        self.status = "closed"

    def scale(self, n: int = 0, memory: Any = None, cores: Any = None) -> None:
        """Not built yet: changing the number of workers while the cluster runs."""
        not_built(
            "LocalCluster.scale", "make the cluster with n_workers=, or start `rasker worker`"
        )

    def adapt(self, *args: Any, minimum: Any = 0, maximum: Any = None, **kwargs: Any) -> None:
        """Not built yet: changing the number of workers with the load."""
        not_built("LocalCluster.adapt", "make the cluster with as many workers as it may need")

    def __getattr__(self, name: str) -> Any:
        if name in _LATER:
            return not_built(f"LocalCluster.{name}", _LATER[name])
        raise AttributeError(f"LocalCluster has no attribute {name!r}")

    def __enter__(self) -> LocalCluster:
        return self._start()

    def __exit__(self, *exc: object) -> None:
        self._close()

    def __await__(self) -> Any:
        from rasker.distributed.awaiting import in_thread

        async def start() -> LocalCluster:
            await in_thread(self._start)
            return self

        return start().__await__()

    async def __aenter__(self) -> LocalCluster:
        return await self  # type: ignore[no-any-return]

    async def __aexit__(self, *exc: object) -> None:
        from rasker.distributed.awaiting import in_thread

        await in_thread(self._close)

    def __repr__(self) -> str:
        from rasker.distributed.representations import cluster_text

        return cluster_text(self)

    def _repr_html_(self) -> str:
        from rasker.distributed.representations import cluster_html

        return cluster_html(self)


_LATER = {
    "get_logs": "look at the log of this process",
    "new_worker_spec": "workers are described by the arguments of LocalCluster",
    "observed": "use client.scheduler_info()",
    "plan": "use client.scheduler_info()",
    "requested": "use client.scheduler_info()",
    "scale_down": "use client.retire_workers",
    "scale_up": "start `rasker worker ADDRESS`",
    "start_worker": "start `rasker worker ADDRESS`",
    "sync": "methods of the cluster block by themselves",
    "from_name": "use Client(address)",
    "called_from_running_loop": "no event loop of Python runs the cluster",
}


def _address_of(interface: str) -> str:
    import fcntl
    import socket
    import struct

    # SIOCGIFADDR, of Linux
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            packed = fcntl.ioctl(s.fileno(), 0x8915, struct.pack("256s", interface[:15].encode()))
        except OSError as error:
            raise ValueError(
                f"network interface {interface!r} has no address; `ip addr` lists those there are"
            ) from error
    return socket.inet_ntoa(packed[20:24])
