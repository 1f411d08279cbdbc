"""`ProgressBar`: how far a local computation has come."""

from __future__ import annotations

import sys
import threading
from time import perf_counter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

from rasker.callbacks import Callback
from rasker.utils import format_time


class ProgressBar(Callback):
    """A bar in the terminal while local schedulers run; for clients see `progress`.

    Parameters
    ----------
    minimum : float, seconds, default 0
        Computations that take less show nothing.
    width : int, characters, default 40
    dt : float, seconds, default 0.1
        How often the bar is written.
    out : file, optional
        Default: standard output.

    Examples
    --------
    >>> import io, rasker
    >>> out = io.StringIO()
    >>> with ProgressBar(out=out):
    ...     rasker.delayed(sum)([1, 2]).compute(scheduler="sync")
    3
    >>> "100% Completed" in out.getvalue()
    True
    """

    def __init__(
        self, minimum: float = 0, width: int = 40, dt: float = 0.1, out: Any = None
    ) -> None:
        super().__init__()
        self._minimum = minimum
        self._width = width
        self._dt = dt
        self._out = out
        self.last_duration: float = 0.0
        self._state: Any = None
        self._thread: threading.Thread | None = None

    def _start(self, dsk: Any) -> None:
        self._state = None
        self._began = perf_counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="rasker-progress-bar")
        self._thread.start()

    def _start_state(self, dsk: Any, state: Any) -> None:
        self._state = state
        self._total = len(state["dependencies"])

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker_id: Any) -> None:
        return  # asks the schedulers to keep count

    def _finish(self, dsk: Any, state: Any, failed: bool) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        passed = perf_counter() - self._began
        self.last_duration = passed
        if passed < self._minimum:
            return
        self._write(passed, "\n" if not failed else " (failed)\n")

    def _run(self) -> None:
        while not self._stop.wait(self._dt):
            passed = perf_counter() - self._began
            if passed > self._minimum and self._state is not None:
                self._write(passed, "")

    def _write(self, passed: float, end: str) -> None:
        done = len(self._state["finished"]) if self._state else 0
        total = self._total if self._state else 0
        part = done / total if total else 1.0
        bar = "#" * int(self._width * part)
        out = self._out or sys.stdout
        out.write(
            f"\r[{bar:<{self._width}}] | {int(100 * part):>3}% Completed | "
            f"{format_time(passed):>9}{end}"
        )
        out.flush()
