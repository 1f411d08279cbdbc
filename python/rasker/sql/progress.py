"""How far statements have come, for whoever watches them run."""

from __future__ import annotations

import contextlib
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rasker._native import Session, SqlQuery

# A scheduler that does not answer in this time is asked again, seconds.
_TIMEOUT = 2.0


class Watch:
    """Sees the statements that begin while it is there."""

    def __init__(self) -> None:
        self._began: list[tuple[SqlQuery, Session | None]] = []
        self._lock = threading.Lock()

    def began(self, query: SqlQuery, session: Session | None) -> None:
        with self._lock:
            self._began.append((query, session))

    def text(self) -> str:
        """How far they have come: tasks on workers, rows in this process; or nothing yet."""
        with self._lock:
            began = list(self._began)
        n_ended = n_tasks = n_rows = 0
        for query, session in began:
            if session is None:
                n_rows += query.n_rows_read()
                continue
            # The workers' side may be closed while it is asked.
            with contextlib.suppress(RuntimeError, TimeoutError):
                ended, all_tasks = query.n_ended(session, _TIMEOUT)
                n_ended, n_tasks = n_ended + ended, n_tasks + all_tasks
        parts = []
        if n_tasks:
            parts.append(f"{n_ended:,} of {n_tasks:,} tasks")
        if n_rows:
            parts.append(f"{n_rows:,} rows read")
        return ", ".join(parts)


_watches: list[Watch] = []


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Watch the statements of all threads."""
    watch = Watch()
    _watches.append(watch)
    try:
        yield watch
    finally:
        _watches.remove(watch)


def began(query: SqlQuery, session: Session | None) -> None:
    """A statement begins: on the workers of a session, or in this process."""
    for watch in tuple(_watches):
        watch.began(query, session)
