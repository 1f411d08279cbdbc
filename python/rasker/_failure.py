"""Exceptions on their way between processes: type, arguments, chain and traceback survive."""

from __future__ import annotations

import pickle
import traceback
from types import CodeType, FrameType, TracebackType
from typing import Any

_TEXT_MAX = 1 << 20


def pack(error: BaseException, key: str) -> tuple[bytes, str, str]:
    """Bytes of `error`, one line that names it, and its traceback as text."""
    text = "".join(traceback.format_exception_only(type(error), error)).strip()[:_TEXT_MAX]
    formatted = "".join(traceback.format_exception(error))[:_TEXT_MAX]
    return _dump(error), text, formatted


def _frames(error: BaseException) -> list[tuple[str, str, int]]:
    summary = traceback.extract_tb(error.__traceback__)
    return [(frame.filename, frame.name, frame.lineno or 0) for frame in summary]


def _dump(error: BaseException) -> bytes:
    from rasker._pickle import dumps

    links: list[tuple[bytes | None, str, list[tuple[str, str, int]], str]] = []
    link: BaseException | None = error
    relation = ""
    seen: set[int] = set()
    while link is not None and id(link) not in seen and len(links) < 32:
        seen.add(id(link))
        text = "".join(traceback.format_exception_only(type(link), link)).strip()[:_TEXT_MAX]
        cause, context = link.__cause__, link.__context__
        suppress = link.__suppress_context__
        data: bytes | None
        try:
            data = dumps(link)
            pickle.loads(data)
        except BaseException:
            data = None
        if data is not None and len(data) > _TEXT_MAX:
            data = None
        links.append((data, text, _frames(link), relation))
        if cause is not None:
            link, relation = cause, "cause"
        elif context is not None and not suppress:
            link, relation = context, "context"
        else:
            link = None
    return pickle.dumps(links)


def unpack(
    kind: str,
    key: str,
    data: bytes,
    text: str,
    formatted: str,
    attempts: int,
    worker: str,
    history: list[str],
) -> BaseException:
    """The exception that a failed task stands for."""
    from rasker.exceptions import (
        CancelledError,
        FutureCancelledError,
        KilledWorker,
        LostError,
        TaskOutOfMemory,
    )

    if kind == "cancelled":
        return FutureCancelledError(key, text) if key else CancelledError(text)
    if kind == "killed":
        return KilledWorker(key, worker or None, attempts - 1, reason=text, history=history)
    if kind == "lost":
        return LostError(text)
    if kind == "memory":
        error = TaskOutOfMemory(text)
        error.__cause__ = _load(data, formatted) if data else None
        return error
    if not data:
        return RuntimeError(text or f"task {key!r} failed")
    return _load(data, formatted)


def _load(data: bytes, formatted: str) -> BaseException:
    first: BaseException | None = None
    last: BaseException | None = None
    for dumped, text, frames, relation in pickle.loads(data):
        error = _revive(dumped, text)
        error.__traceback__ = _traceback(frames)
        if first is None:
            first = error
        elif last is not None and relation == "cause":
            last.__cause__ = error
        elif last is not None:
            last.__context__ = error
        last = error
    assert first is not None
    return first


def _revive(dumped: bytes | None, text: str) -> BaseException:
    if dumped is not None:
        try:
            error = pickle.loads(dumped)
            if isinstance(error, BaseException):
                return error
        except Exception as reason:
            text = f"{text} (its class could not be read here: {reason})"
    return RuntimeError(text)


def _traceback(frames: list[tuple[str, str, int]]) -> TracebackType | None:
    """A traceback whose frames have these files, names and lines."""
    result: TracebackType | None = None
    for filename, name, line in reversed(frames):
        frame = _frame(filename, name)
        if frame is not None:
            # Without a place in the code the line that is given here is the one that is shown.
            result = TracebackType(result, frame, -1, max(line, 1))
    return result


def _frame(filename: str, name: str) -> FrameType | None:
    code: CodeType = compile("raise_here()", filename, "exec").replace(co_name=name)
    caught: list[FrameType | None] = []

    def raise_here() -> None:
        import sys

        caught.append(sys._getframe(1))

    scope: dict[str, Any] = {"raise_here": raise_here, "__name__": name, "__file__": filename}
    exec(code, scope)
    return caught[0]
