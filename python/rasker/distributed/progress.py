"""`progress`: how far futures have come, in a terminal or a notebook."""

from __future__ import annotations

import sys
import threading
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

from rasker.utils import format_time, key_split


class _Counts:
    """How many futures there are and have ended, by the first part of their keys."""

    def __init__(self, futures: list[Any], group_by: Any) -> None:
        self.total: dict[str, int] = {}
        self.ended: dict[str, int] = {}
        self.failed = 0
        self.changed = threading.Event()
        self.lock = threading.Lock()
        self.started = monotonic()
        self.n = len(futures)
        names = {"prefix": key_split}
        name_of = names.get(group_by, group_by) if not callable(group_by) else group_by
        if not callable(name_of):
            raise ValueError(f"group_by must be 'prefix' or a function of a key, not {group_by!r}")
        for f in futures:
            name = str(name_of(f.key))
            self.total[name] = self.total.get(name, 0) + 1
            self.ended.setdefault(name, 0)
            # The handle is not kept: to look at work must not keep its results alive.
            f.add_callback(lambda f=f, name=name: self._on_end(f, name))

    def _on_end(self, future: Any, name: str) -> None:
        failed = future.status in ("error", "cancelled", "lost")
        with self.lock:
            self.ended[name] += 1
            self.failed += failed
        self.changed.set()

    def is_done(self) -> bool:
        return sum(self.ended.values()) >= self.n

    def line(self, width: int = 40) -> str:
        done = sum(self.ended.values())
        part = done / self.n if self.n else 1.0
        bar = "#" * int(width * part)
        failed = f", {self.failed} failed" if self.failed else ""
        passed = format_time(monotonic() - self.started)
        return f"[{bar:<{width}}] | {part:4.0%} | {done} of {self.n}{failed} | {passed}"


class TextProgress:
    """A bar in a terminal; `progress` makes it.

    Parameters
    ----------
    counts : object
    interval : float, seconds, default 0.1
        How often the line is written at most.
    out : file, optional
        Default: standard output.
    """

    def __init__(self, counts: _Counts, interval: float = 0.1, out: Any = None) -> None:
        self._counts = counts
        self._interval = interval
        self._out = out or sys.stdout

    def run(self) -> None:
        """Write the bar until all futures have ended."""
        counts = self._counts
        while True:
            counts.changed.clear()
            done = counts.is_done()
            self._out.write("\r" + counts.line() + ("\n" if done else ""))
            self._out.flush()
            if done:
                return
            counts.changed.wait(1.0)
            threading.Event().wait(self._interval)


class NotebookProgress:
    """Bars in a notebook that follow the work while other cells run; `progress` makes it.

    Parameters
    ----------
    counts : object
    multi : bool
        One bar per kind of task.
    complete : bool
        Show kinds that have ended as well.
    """

    def __init__(self, counts: _Counts, multi: bool, complete: bool) -> None:
        self._counts = counts
        self._multi = multi
        self._complete = complete

    def _repr_html_(self) -> str:
        from html import escape

        counts = self._counts
        rows = dict(counts.total) if self._multi else {"all": counts.n}
        parts = []
        for name, total in rows.items():
            done = counts.ended[name] if self._multi else sum(counts.ended.values())
            if done == total and not self._complete and len(rows) > 1:
                continue
            parts.append(
                f"<div>{escape(name)} <progress max='{total}' value='{done}'></progress> "
                f"{done} / {total}</div>"
            )
        failed = f"<div style='color:#b3261e'>{counts.failed} failed</div>" if counts.failed else ""
        return "".join(parts) + failed

    def _ipython_display_(self, **kwargs: Any) -> None:
        from IPython.display import HTML, display

        shown = display(HTML(self._repr_html_()), display_id=True)

        def follow() -> None:
            while shown is not None and not self._counts.is_done():
                self._counts.changed.wait(1.0)
                self._counts.changed.clear()
                shown.update(HTML(self._repr_html_()))
                threading.Event().wait(0.2)
            if shown is not None:
                shown.update(HTML(self._repr_html_()))

        threading.Thread(target=follow, daemon=True, name="rasker-progress").start()


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


def progress(
    *futures: Any,
    notebook: bool | None = None,
    multi: bool = True,
    complete: bool = True,
    group_by: Any = "prefix",
    **kwargs: Any,
) -> Any:
    """Show how far futures have come.

    In a terminal this writes a bar and returns when all have ended, however they ended; in a
    notebook it returns at once something that follows the work.

    Parameters
    ----------
    *futures : futures, containers of them, or collections that hold them
    notebook : bool, optional
        Default: whether this is a notebook.
    multi : bool, default True
        In a notebook: one bar per kind of task.
    complete : bool, default True
        In a notebook: also the kinds that have ended.
    group_by : 'prefix' or callable, default 'prefix'
        What the kind of a task is, from its key.
    **kwargs
        `interval` (seconds between lines) and `out` (a file), for a terminal.

    Examples
    --------
    >>> futures = client.map(abs, range(1000))  # doctest: +SKIP
    >>> progress(futures)  # doctest: +SKIP
    [########################################] | 100% | 1000 of 1000 | 20.10 ms
    """
    from rasker.distributed.waiting import futures_of

    found = futures_of(list(futures))
    counts = _Counts(found, group_by)
    del found
    if notebook or (notebook is None and _in_notebook()):
        return NotebookProgress(counts, multi, complete)
    TextProgress(counts, **kwargs).run()
    return None
