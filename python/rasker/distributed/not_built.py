"""Names of Dask that are not built yet: each exists and says so when it is used."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def not_built(what: str, instead: str) -> NoReturn:
    """Raise NotImplementedError with what to do instead."""
    raise NotImplementedError(f"{what} is not built yet; {instead}")


def _class(name: str, purpose: str, instead: str) -> type:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        not_built(name, instead)

    text = f"{purpose}\n\nNot built yet: making one raises NotImplementedError. For now {instead}."
    body = {"__init__": __init__, "__doc__": text, "__module__": "rasker.distributed"}
    return type(name, (), body)


def _plugin(name: str, purpose: str) -> type:
    # Plugin classes may be derived from and made; it is registering them that is not built.
    text = f"{purpose}\n\nNot built yet: Client.register_plugin raises NotImplementedError."
    return type(name, (), {"__doc__": text, "__module__": "rasker.distributed"})


def _function(name: str, purpose: str, instead: str) -> Any:
    def later(*args: Any, **kwargs: Any) -> NoReturn:
        not_built(name, instead)

    later.__name__ = later.__qualname__ = name
    later.__doc__ = f"{purpose}\n\nNot built yet: calling it raises NotImplementedError."
    later.__module__ = "rasker.distributed"
    return later


_COORDINATION = "pass values through futures, or use a database or file system both sides can reach"
_STATE = "keep state in the values that tasks return"
_SERVER = "use LocalCluster, or the programs `rasker scheduler` and `rasker worker`"
_DEPLOY = "start `rasker scheduler` and `rasker worker ADDRESS` yourself"
_SETUP = "prepare the environment of the workers before they start, or use client.run"

_CLASSES = (
    ("Lock", "A lock that all clients and tasks of a cluster share.", _COORDINATION),
    ("MultiLock", "Several locks taken at once.", _COORDINATION),
    ("Semaphore", "A counter of leases that a cluster shares.", _COORDINATION),
    ("Event", "A flag that a cluster shares.", _COORDINATION),
    ("Queue", "A queue of futures and small values that a cluster shares.", _COORDINATION),
    ("Variable", "A named future or small value that a cluster shares.", _COORDINATION),
    ("Actor", "An object that lives on one worker and is called there.", _STATE),
    ("BaseActorFuture", "The result of a call of an actor.", _STATE),
    ("ActorFuture", "The result of a call of an actor.", _STATE),
    ("Scheduler", "A scheduler as an object of Python.", _SERVER),
    ("Worker", "A worker as an object of Python.", _SERVER),
    ("Nanny", "A process that watches a worker; workers here watch their executors.", _SERVER),
    ("SpecCluster", "A cluster made from descriptions of its parts.", _DEPLOY),
    ("Adaptive", "The number of workers follows the load.", _DEPLOY),
    ("performance_report", "A page about all that ran inside a with block.",
     "use client.story, or measure with time.perf_counter"),
    ("get_task_stream", "Which task ran where and when, inside a with block.",
     "use client.get_events"),
    ("span", "A name for the tasks made inside a with block.", "use rasker.annotate"),
    ("CompatibleExecutor", "An executor over a client.", "use client.get_executor()"),
)  # fmt: skip

_PLUGINS = (
    ("SchedulerPlugin", "Hooks into a scheduler."),
    ("WorkerPlugin", "Hooks into workers."),
    ("NannyPlugin", "Hooks into the watchers of workers."),
    ("InstallPlugin", "Installs packages on workers."),
    ("PipInstall", "Installs packages on workers by pip."),
    ("CondaInstall", "Installs packages on workers by conda."),
    ("UploadFile", "Copies a file to workers."),
    ("UploadDirectory", "Copies a folder to workers."),
    ("Environ", "Sets environment variables on workers."),
)

_FUNCTIONS = (
    ("SSHCluster", "A cluster over computers that SSH reaches.", _DEPLOY),
    ("SubprocessCluster", "A cluster of processes of this computer.", "use LocalCluster"),
    ("get_task_metadata", "Metadata of all tasks inside a with block.", "use client.story"),
    ("connect", "A connection to a server.", "use Client(address)"),
    ("rpc", "Calls of a server.", "use the methods of Client"),
    ("sync", "Run a coroutine in the event loop of a client.", "no event loop runs a client here"),
)

NAMES: dict[str, Any] = {n: _class(n, purpose, instead) for n, purpose, instead in _CLASSES}
NAMES |= {n: _plugin(n, purpose) for n, purpose in _PLUGINS}
NAMES |= {n: _function(n, purpose, instead) for n, purpose, instead in _FUNCTIONS}

# Members of Client: name to what to do instead.
CLIENT_METHODS: dict[str, str] = {
    "amm": "replicas are managed by the scheduler",
    "benchmark_hardware": "measure with client.run",
    "dump_cluster_state": "use client.scheduler_info and client.story",
    "forward_logging": "read the logs of the workers",
    "get_dataset": "keep futures in the client, or write results to files",
    "get_metadata": "keep metadata beside the futures",
    "get_scheduler_logs": "read the log of the scheduler's process",
    "get_task_stream": "use client.get_events",
    "get_worker_logs": "read the logs of the workers' processes",
    "list_datasets": "keep futures in the client, or write results to files",
    "nbytes": "use client.who_has, or sizeof of a gathered result",
    "profile": "profile a task with cProfile inside it",
    "publish_dataset": "keep futures in the client, or write results to files",
    "register_plugin": _SETUP,
    "register_worker_callbacks": _SETUP,
    "restart_workers": "use client.restart",
    "run_on_scheduler": "the scheduler runs no user code; use client.run",
    "set_metadata": "keep metadata beside the futures",
    "subscribe_topic": "use client.get_events",
    "unforward_logging": "read the logs of the workers",
    "unpublish_dataset": "keep futures in the client, or write results to files",
    "unregister_scheduler_plugin": "no plugin can be registered yet",
    "unregister_worker_plugin": "no plugin can be registered yet",
    "unsubscribe_topic": "use client.get_events",
    "upload_file": _SETUP,
    "write_scheduler_file": "start the scheduler with --scheduler-file",
    "rpc": "use the methods of Client",
    "scheduler_comm": "use the methods of Client",
    "preloads": "give preload= to LocalCluster, or --preload to the programs",
}


class Status:
    """The states of a cluster or client, as texts."""

    created = "created"
    running = "running"
    closing = "closing"
    closed = "closed"
    lost = "lost"
