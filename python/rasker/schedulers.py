"""Which scheduler runs a computation: keyword, then configuration, then client, then preference."""

from __future__ import annotations

import sys
from collections.abc import Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

_MODULES = {
    "sync": "rasker.local",
    "synchronous": "rasker.local",
    "single-threaded": "rasker.local",
    "threads": "rasker.threaded",
    "threading": "rasker.threaded",
    "processes": "rasker.multiprocessing",
    "multiprocessing": "rasker.multiprocessing",
}


class _NamedSchedulers(Mapping):  # type: ignore[type-arg]
    # Modules are imported when their scheduler is asked for.
    def __getitem__(self, name: str) -> Callable[..., Any]:
        from importlib import import_module

        module = import_module(_MODULES[name])
        name = "get_sync" if module.__name__ == "rasker.local" else "get"
        return getattr(module, name)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


named_schedulers: Mapping[str, Callable[..., Any]] = _NamedSchedulers()

# Dask's collections prefer Dask's local schedulers; ours of the same shape stand in.
_FOREIGN = {"dask.threaded": "threads", "dask.multiprocessing": "processes", "dask.local": "sync"}


def current_client() -> Any:
    """The client that is the default here, or None; does not import what was never used."""
    module = sys.modules.get("rasker.distributed.defaults")
    return module.current_client() if module is not None else None


def _resolve(scheduler: Any) -> Callable[..., Any]:
    if isinstance(scheduler, str):
        name = scheduler.lower()
        if name in _MODULES:
            return named_schedulers[name]
        if name in ("dask.distributed", "distributed"):
            client = current_client()
            if client is None:
                raise ValueError(
                    "scheduler 'distributed' needs a client; make one with "
                    "rasker.distributed.Client(), or use 'threads'"
                )
            return client.get  # type: ignore[no-any-return]
        raise ValueError(
            f"scheduler {scheduler!r} not found; use one of "
            f"{', '.join(map(repr, _MODULES))}, a client, an executor, or a function"
        )
    if callable(getattr(scheduler, "submit", None)) and not hasattr(scheduler, "persist"):
        from rasker import config
        from rasker.local import executor_scheduler

        return executor_scheduler(scheduler, config.get("num-workers", None))
    if callable(getattr(scheduler, "get", None)):
        return scheduler.get  # type: ignore[no-any-return]
    if callable(scheduler):
        return scheduler  # type: ignore[no-any-return]
    raise TypeError(
        f"scheduler must be a str, a client, an executor or a function, "
        f"not {type(scheduler).__name__}"
    )


def get_scheduler(
    get: None = None,
    scheduler: Any = None,
    collections: Iterable[Any] | None = None,
    cls: Any = None,
) -> Any:
    """The scheduler function that would be used.

    Parameters
    ----------
    get : None
        Has been removed.
    scheduler : str, Client, executor or callable, optional
    collections : iterable of collection, optional
        Whose preference counts last.
    cls : type, optional
        Or a class of collections.

    Returns
    -------
    callable or None
        A function of graph and keys; None where nothing says which.

    Raises
    ------
    ValueError
        If the name is not known, or the collections prefer different schedulers.
    """
    if get is not None:
        raise TypeError("the keyword get= has been removed; use scheduler=, which takes the same")
    if scheduler is not None:
        return _resolve(scheduler)
    from rasker import config

    scheduler = config.get("scheduler", None)
    if scheduler is not None:
        return _resolve(scheduler)
    client = current_client()
    if client is not None:
        return client.get
    if cls is not None:
        return _preferred(cls)
    found: Any = None
    for c in collections or ():
        wanted = _preferred(c)
        if found is not None and wanted is not found and wanted is not None:
            raise ValueError(
                "collections prefer different schedulers; say which with scheduler=, "
                "for instance scheduler='threads'"
            )
        found = wanted or found
    return found or (named_schedulers["threads"] if collections else None)


def _preferred(collection: Any) -> Any:
    preferred = getattr(collection, "__dask_scheduler__", None)
    name = _FOREIGN.get(getattr(preferred, "__module__", ""))
    return named_schedulers[name] if name else preferred


def runner_of(schedule: Any) -> Callable[..., list[Any]] | None:
    """The direct way into a scheduler of ours, which takes calls instead of a graph; or None."""
    runner = getattr(schedule, "rasker_runner", None)
    if runner is None:
        client = getattr(schedule, "__self__", None)
        runner = getattr(client, "_run_lowered", None) if client is not None else None
    return runner
