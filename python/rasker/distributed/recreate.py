"""Running a task of the cluster again in this process."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _call_of(client: Any, future: Any) -> Any:
    # The answer is the call that failed: the task itself, or the one it depends on.
    func, args, kwargs = client._session.query("call", future.key, None)
    found = client._gather([args, kwargs or {}], False)
    return func, found[0], found[1]


def recreate_error(client: Any, future: Any) -> Any:
    """Wait for a task, and if it failed run the failed call here.

    Raises
    ------
    Exception
        What the call raises, with the frames of this process.
    """
    if future.failure(None) is None:
        return None
    func, args, kwargs = _call_of(client, future)
    return func(*args, **kwargs)


def recreate_task(client: Any, future: Any) -> Any:
    """Run the call of a task here and return its result."""
    func, args, kwargs = _call_of(client, future)
    return func(*args, **kwargs)
