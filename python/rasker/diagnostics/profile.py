"""`Profiler` and `ResourceProfiler`: when tasks ran, and what the process used meanwhile."""

from __future__ import annotations

import os
import threading
from collections import namedtuple
from time import perf_counter, sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

from rasker.callbacks import Callback

TaskData = namedtuple("TaskData", ["key", "task", "start_time", "end_time", "worker_id"])
ResourceData = namedtuple("ResourceData", ["time", "mem", "cpu"])


class Profiler(Callback):
    """Start and end of each task of local computations.

    For the schedulers 'sync' and 'threads', and executors; with 'processes' it raises
    NotImplementedError when the computation starts.

    Attributes
    ----------
    results : list of TaskData
        Named tuples of key, task, start_time and end_time (seconds of `time.perf_counter`),
        worker_id.

    Examples
    --------
    >>> import rasker
    >>> with Profiler() as profiler:
    ...     rasker.delayed(sum)([1, 2]).compute(scheduler="sync")
    3
    >>> len(profiler.results)
    1
    """

    def __init__(self) -> None:
        super().__init__()
        self.results: list[Any] = []
        self._began: dict[Any, float] = {}

    def __enter__(self) -> Any:
        self.clear()
        return super().__enter__()

    def _pretask(self, key: Any, dsk: Any, state: Any) -> None:
        self._began[key] = perf_counter()

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker_id: Any) -> None:
        end = perf_counter()
        start = self._began.pop(key, end)
        task = dsk.get(key) if hasattr(dsk, "get") else None
        self.results.append(TaskData(key, task, start, end, worker_id))

    def clear(self) -> None:
        """Forget what was measured."""
        self.results = []
        self._began = {}

    def visualize(self, **kwargs: Any) -> NoReturn:
        """Not built yet: a plot of the results."""
        visualize(self)


class ResourceProfiler(Callback):
    """Memory and processor use of this process while local computations run, or a ``with`` block.

    Parameters
    ----------
    dt : float, seconds, default 1
        How often it looks.

    Attributes
    ----------
    results : list of ResourceData
        Named tuples of time (seconds of `time.perf_counter`), mem (MB) and cpu (percent of one
        core).
    """

    def __init__(self, dt: float = 1) -> None:
        super().__init__()
        self.results: list[Any] = []
        self._dt = dt
        self._stop: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Any:
        self.clear()
        self._begin()
        return super().__enter__()

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self.close()

    def _start(self, dsk: Any) -> None:
        if self._thread is None:
            self._begin()
            self._inside = True

    def _finish(self, dsk: Any, state: Any, failed: bool) -> None:
        if getattr(self, "_inside", False):
            self.close()

    def _begin(self) -> None:
        self._inside = False
        self._stop = stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(stop,), daemon=True, name="rasker-resources"
        )
        self._thread.start()

    def _run(self, stop: threading.Event) -> None:
        pause = min(self._dt, 1.0)
        while True:
            cpu, at = sum(os.times()[:2]), perf_counter()
            ended = stop.wait(pause)
            now = perf_counter()
            used = 100 * (sum(os.times()[:2]) - cpu) / max(now - at, 1e-9)
            self.results.append(ResourceData(now, _resident() / 1e6, used))
            if ended:
                return
            sleep(max(0.0, self._dt - pause))

    def close(self) -> None:
        """Stop looking."""
        if self._stop is not None and self._thread is not None:
            self._stop.set()
            self._thread.join()
        self._thread = None
        self._stop = None

    def clear(self) -> None:
        """Forget what was measured."""
        self.results = []

    def visualize(self, **kwargs: Any) -> NoReturn:
        """Not built yet: a plot of the results."""
        visualize(self)


def _resident() -> int:
    """Memory of this process, bytes."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class CacheProfiler(Callback):
    """Not built yet: which values a scheduler held, and for how long."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("CacheProfiler is not built yet; use Profiler")


def visualize(*profilers: Any, **kwargs: Any) -> NoReturn:
    """Not built yet: a plot of what profilers have measured."""
    raise NotImplementedError(
        "plots of profiles are not built yet; read the attribute `results`, a list of named tuples"
    )
