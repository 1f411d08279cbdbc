"""The exceptions of the package, in one place.

Each also inherits the standard class that it is a case of, so that ``except`` clauses written for
that keep working.
"""

from __future__ import annotations

from concurrent.futures import CancelledError as _CancelledError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CancelledError",
    "FutureCancelledError",
    "KilledWorker",
    "LostError",
    "NoValidWorkerError",
    "P2PConsistencyError",
    "P2POutOfDiskError",
    "Reschedule",
    "SchedulerClosedError",
    "SqlError",
    "SqlNotSupportedError",
    "TaskOutOfMemory",
    "TimeoutError",
    "WorkerStartTimeoutError",
]

TimeoutError = TimeoutError  # noqa: A001, PLW0127 - Dask's public name for the standard class


class CancelledError(_CancelledError):
    """The task was cancelled, or its client closed, before there was a result."""


class FutureCancelledError(CancelledError):
    """A future was cancelled.

    Parameters
    ----------
    key : key
        Of the task.
    reason : str, optional
        Why, in a word or two.
    msg : str, optional
        More about it.
    """

    def __init__(self, key: object = "", reason: str | None = None, msg: str | None = None) -> None:
        self.key = key
        self.reason = reason or "unknown"
        self.msg = msg
        super().__init__(key, reason, msg)

    def __str__(self) -> str:
        text = f"task {self.key!r} was cancelled: {self.reason}"
        return f"{text}. {self.msg}" if self.msg else text


class KilledWorker(RuntimeError):  # noqa: N818 - Dask's public name
    """A task was given up because every worker that ran it died.

    Parameters
    ----------
    task : key
    last_worker : object, optional
        The worker that died last.
    allowed_failures : int, optional
        How many deaths were forgiven.
    reason : str, optional
        How it died, in whole sentences.
    history : list of str, optional
        What became of each attempt, the first one first: the worker, how its executor ended, and
        the last lines that it wrote to its standard error.
    """

    def __init__(
        self,
        task: object = "",
        last_worker: object = None,
        allowed_failures: int | None = None,
        reason: str | None = None,
        history: Sequence[str] = (),
    ) -> None:
        self.history = list(history)
        self.task = task
        self.reason = reason
        self.last_worker = last_worker
        self.allowed_failures = allowed_failures
        super().__init__(task, last_worker, allowed_failures, reason, self.history)

    def __str__(self) -> str:
        if self.reason is not None:
            return self.reason
        if self.last_worker is None:
            return str(self.task)
        return (
            f"worker was lost while running task {self.task!r}: it was attempt "
            f"{(self.allowed_failures or 0) + 1}, the limit is {self.allowed_failures}, and the "
            f"last worker was {self.last_worker}; look for a crash or too much memory in the "
            "task, or raise the configuration key distributed.scheduler.allowed-failures"
        )


class LostError(RuntimeError):
    """A value was lost and cannot be made again, because it was scattered and not computed."""


class TaskOutOfMemory(MemoryError):  # noqa: N818 - named after what happened to the task
    """A task needed more memory than its worker may use.

    Only that task fails: others that ran beside it are run again where they had to be interrupted.
    """


class SchedulerClosedError(ConnectionError):
    """The scheduler ended, or the connection to it did, while something was asked of it."""


class NoValidWorkerError(RuntimeError):
    """No worker may run a task, for longer than was allowed.

    Parameters
    ----------
    task : key
    host_restrictions, worker_restrictions : set of str, optional
        Where it may run.
    resource_restrictions : dict, optional
        What it needs.
    timeout : float, seconds, optional
        How long was waited.
    """

    def __init__(
        self,
        task: object = "",
        host_restrictions: object = None,
        worker_restrictions: object = None,
        resource_restrictions: object = None,
        timeout: float | None = None,
    ) -> None:
        self.task = task
        self.host_restrictions = host_restrictions
        self.worker_restrictions = worker_restrictions
        self.resource_restrictions = resource_restrictions
        self.timeout = timeout
        super().__init__(
            task, host_restrictions, worker_restrictions, resource_restrictions, timeout
        )

    def __str__(self) -> str:
        wanted = [
            f"{name} {value}"
            for name, value in (
                ("hosts", self.host_restrictions),
                ("workers", self.worker_restrictions),
                ("resources", self.resource_restrictions),
            )
            if value
        ]
        return (
            f"no worker may run task {self.task!r}, which wants "
            f"{', '.join(wanted) or 'any worker'}; "
            "start a worker that fits, or loosen what is wanted"
        )


class Reschedule(Exception):  # noqa: N818 - Dask's public name
    """Raise this in a task to have it run again, perhaps elsewhere."""


class WorkerStartTimeoutError(TimeoutError):
    """Fewer workers joined in time than were waited for.

    Parameters
    ----------
    available_workers, expected_workers : int
    timeout : float, seconds
    """

    def __init__(self, available_workers: int, expected_workers: int, timeout: float) -> None:
        self.available_workers = available_workers
        self.expected_workers = expected_workers
        self.timeout = timeout
        super().__init__(available_workers, expected_workers, timeout)

    def __str__(self) -> str:
        return (
            f"only {self.available_workers} of {self.expected_workers} workers joined in "
            f"{self.timeout} s; look at their logs, or wait longer"
        )


class P2PConsistencyError(RuntimeError):
    """An exchange ended with parts missing or doubled."""


class P2POutOfDiskError(OSError):
    """An exchange found no more room on the disk."""


class SqlError(ValueError):
    """A statement is not SQL, asks for what is not there, or met data that does not fit."""


class SqlNotSupportedError(SqlError, NotImplementedError):
    """A statement asks for what is not supported."""
