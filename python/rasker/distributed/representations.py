"""Clients, clusters and futures as text and as HTML, for terminals and notebooks."""

from __future__ import annotations

from html import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

from rasker.utils import format_bytes

_COLORS = {
    "pending": "#b0b0b0",
    "finished": "#3a7d44",
    "error": "#b3261e",
    "lost": "#7a5c00",
    "cancelled": "#555555",
}


def _table(title: str, rows: list[tuple[str, object]]) -> str:
    cells = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
        for name, value in rows
    )
    return f"<div><strong>{escape(title)}</strong><table>{cells}</table></div>"


def future_html(future: Any) -> str:
    """One line: the state, in its color, and the key."""
    status = future.status
    color = _COLORS.get(status, "#000000")
    return (
        f"<strong>Future</strong> <code>{escape(str(future.key))}</code> "
        f"<span style='color:{color}'>{escape(status)}</span>"
    )


def _cluster_rows(cluster: Any) -> list[tuple[str, object]]:
    n, threads = cluster.n_workers, cluster.threads_per_worker
    limit = cluster.memory_limit
    return [
        ("workers", n),
        ("threads", n * threads),
        ("memory", format_bytes(limit * n) if limit else "no limit"),
        ("executors", "processes" if cluster.processes else "threads"),
        ("status", cluster.status),
    ]


def cluster_text(cluster: Any) -> str:
    """A line about a cluster."""
    rows = dict(_cluster_rows(cluster))
    return (
        f"LocalCluster({cluster.name!r}, workers={rows['workers']}, threads={rows['threads']}, "
        f"memory={rows['memory']})"
    )


def cluster_html(cluster: Any) -> str:
    """A table about a cluster."""
    rows = [("address", cluster.scheduler_address), *_cluster_rows(cluster)]
    return _table(f"LocalCluster {cluster.name}", rows)


def _client_rows(client: Any) -> list[tuple[str, object]]:
    try:
        info = client._session.query("scheduler_info", None, 2.0)
        workers = info.get("workers", {})
    except Exception:
        # A representation is asked for by debuggers and must not raise.
        return []
    threads = sum(w.get("nthreads", 0) for w in workers.values())
    memory = sum(w.get("memory_limit", 0) or 0 for w in workers.values())
    return [
        ("workers", len(workers)),
        ("threads", threads),
        ("memory", format_bytes(memory) if memory else "no limit"),
    ]


def client_text(client: Any) -> str:
    """A line about a client."""
    if client._session is None:
        return f"<Client: {client.status}>"
    address = client._session.address
    if client.status != "running":
        return f"<Client: {client.status}, {address!r}>"
    rows = "".join(f" {name}={value}" for name, value in _client_rows(client))
    return f"<Client: {address!r}{rows}>"


def client_html(client: Any) -> str:
    """A table about a client."""
    if client._session is None:
        return _table("Client", [("status", client.status)])
    rows: list[tuple[str, object]] = [
        ("address", client._session.address),
        ("status", client.status),
    ]
    return _table(f"Client {client.id}", rows + _client_rows(client))
