"""What a task can ask for: its worker, a client of its cluster, and to leave its slot."""

from __future__ import annotations

import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

from rasker import _native
from rasker.distributed import defaults

_lock = threading.Lock()
_clients: dict[tuple[int, str], Any] = {}


class TaskWorker:
    """What a task may know of the worker that runs it.

    Attributes
    ----------
    address : str
    name : str
    scheduler_address : str
    """

    def __init__(self, task: dict[str, Any]) -> None:
        self.address: str = task.get("worker_address", "")
        self.name: str = task.get("worker_name", "")
        self.scheduler_address: str = task.get("address", "")
        self._key = task.get("key")

    def get_current_task(self) -> Any:
        """The key of the task that asked."""
        return self._key

    @property
    def client(self) -> Any:
        """A client of this worker's cluster."""
        return client_for(self.scheduler_address)

    def __repr__(self) -> str:
        return f"<Worker {self.address!r}, name {self.name!r}>"


def get_worker() -> TaskWorker:
    """The worker that runs this task.

    Raises
    ------
    ValueError
        If this is not inside a task.
    """
    task = _native.current_task()
    if task is None:
        raise ValueError("no worker found; get_worker works inside a task")
    return TaskWorker(task)


def client_for(address: str) -> Any:
    """A client for the scheduler at an address, shared by this process."""
    current = defaults.current_client()
    if current is not None and (not address or current._session.address == address):
        return current
    from rasker.distributed.client import Client

    place = (os.getpid(), address)
    with _lock:
        found = _clients.get(place)
        if found is None or found.status != "running":
            found = _clients[place] = Client(address, set_as_default=False)
        return found


def get_client(
    address: str | None = None, timeout: Any = None, resolve_address: bool = True
) -> Any:
    """A client: inside a task one of its cluster, elsewhere the current one.

    Parameters
    ----------
    address : str, optional
        Of a scheduler.
    timeout : float or str, seconds, optional
        For connecting.
    resolve_address : bool
        Has no meaning here.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> def total(n):
    ...     client = get_client()
    ...     return sum(client.gather(client.map(abs, range(n))))
    """
    task = _native.current_task()
    if task is not None:
        return client_for(address or TaskWorker(task).scheduler_address)
    if address is not None:
        return client_for(address)
    return defaults.default_client()


def secede() -> None:
    """Leave the slot of this task, so that others run while it waits.

    Raises
    ------
    ValueError
        If this is not inside a task.
    """
    if _native.current_task() is None:
        raise ValueError("no task found; secede works inside a task")
    _native.secede()


def rejoin() -> None:
    """Wait for a slot after `secede`."""
    if _native.current_task() is None:
        raise ValueError("no task found; rejoin works inside a task")
    _native.rejoin()


class worker_client:  # noqa: N801 - Dask's public name
    """A client for a task, whose slot is free while the ``with`` block runs.

    Parameters
    ----------
    timeout : float or str, seconds, optional
        For connecting.
    separate_thread : bool, default True
        Leave the slot; False keeps it, which may leave no slot for what is submitted.

    Examples
    --------
    >>> def total(n):
    ...     with worker_client() as client:
    ...         return sum(client.gather(client.map(abs, range(n))))
    """

    def __init__(self, timeout: Any = None, separate_thread: bool = True) -> None:
        self._timeout = timeout
        self._separate = separate_thread
        self._token: Any = None

    def __enter__(self) -> Any:
        client = get_client(timeout=self._timeout)
        self._seceded = self._separate and _native.current_task() is not None
        if self._seceded:
            secede()
        self._token = defaults.push(client)
        return client

    def __exit__(self, *exc: object) -> None:
        defaults.pop(self._token)
        if self._seceded:
            rejoin()


local_client = worker_client
