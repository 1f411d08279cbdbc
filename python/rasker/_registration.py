"""Tell the extension module which Python classes it is to make."""

from __future__ import annotations

_done = False


def register() -> None:
    """Register futures and errors, once per process."""
    global _done
    if _done:
        return
    from rasker import _native, exceptions
    from rasker.distributed.future import NativeFuture
    from rasker.distributed.future_list import FutureList

    errors = {name: getattr(exceptions, name) for name in exceptions.__all__}
    _native.register_classes(NativeFuture, FutureList, errors)
    _done = True
