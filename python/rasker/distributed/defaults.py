"""Which client is the current one: of a ``with`` block, of a task, or the last that was made."""

from __future__ import annotations

import threading
import weakref
from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rasker.distributed.client import Client

_in_context: ContextVar[Any] = ContextVar("rasker client", default=None)
_lock = threading.Lock()
_made: list[weakref.ref[Client]] = []  # those that are default, the latest last
_by_session: weakref.WeakValueDictionary[str, Client] = weakref.WeakValueDictionary()

# How many clients are asynchronous; futures look for theirs only if there is one.
n_asynchronous = 0


def add(client: Client, as_default: bool) -> None:
    """Take note of a client that has a session."""
    global n_asynchronous
    with _lock:
        _by_session[client._session.id] = client
        if as_default:
            _made.append(weakref.ref(client))
        if client.asynchronous:
            n_asynchronous += 1


def remove(client: Client) -> None:
    """Forget a client that has closed."""
    with _lock:
        _made[:] = [r for r in _made if r() is not None and r() is not client]


def client_of(session: Any) -> Client | None:
    """The client of a session."""
    return _by_session.get(session.id)


def push(client: Client | None) -> Any:
    """Make a client current in this context; returns what `pop` wants."""
    return _in_context.set(client)


def pop(token: Any) -> None:
    """Undo `push`."""
    _in_context.reset(token)


def current_client(allow_global: bool = True) -> Client | None:
    """The current client, or None."""
    found: Client | None = _in_context.get()
    if found is not None and found.status != "closed":
        return found
    if not allow_global:
        return None
    with _lock:
        for ref in reversed(_made):
            client = ref()
            if client is not None and client.status == "running":
                return client
    return None


def default_client(c: Client | None = None) -> Client:
    """The given client, or the current one.

    Raises
    ------
    ValueError
        If there is none.
    """
    found = c or current_client()
    if found is None:
        raise ValueError(
            "no client found; make one with rasker.distributed.Client(), which starts a local "
            "cluster, or Client('tcp://host:port')"
        )
    return found
