"""The extension module: converts, calls, wraps. Not public; `rasker.distributed` is its face."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")

__version__: str

class Ref:
    """A reference to the result of the task with this key, anywhere inside a task's arguments."""

    key: Hashable
    def __init__(self, key: Hashable) -> None: ...

class Options:
    """How tasks are to be run; one object is shared by many calls."""

    def __init__(
        self,
        *,
        priority: float = 0,
        retries: int = 0,
        workers: Sequence[str] | None = None,
        allow_other_workers: bool = False,
        resources: Mapping[str, float] | None = None,
        pure: bool = True,
    ) -> None: ...

class Handle(Generic[T]):
    """A hold on one task; dropping it releases the task.

    `rasker.distributed.Future` derives from it.

    The native side makes instances of the class given to `register_classes`, without arguments.
    """

    @property
    def key(self) -> Any: ...
    @property
    def status(self) -> str: ...  # 'pending' 'finished' 'error' 'lost' 'cancelled'
    @property
    def session(self) -> Session: ...
    def done(self) -> bool: ...
    def cancelled(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool: ...  # False on time-out
    def value(self, timeout: float | None = None) -> T: ...  # raises the task's error, TimeoutError
    def failure(self, timeout: float | None = None) -> BaseException | None: ...
    def traceback_text(self) -> str | None: ...  # None if the task did not fail
    def add_callback(self, callback: Callable[[], object]) -> None: ...
    # runs once when the task has ended: at once, in the calling thread, if it has, else in the
    # session's callback thread
    def release(self) -> None: ...

class Handles(Generic[T]):
    """The handles of one layer as a lazy sequence. `FutureList` derives from it.

    Where the attribute `_items` of an instance is not None, that list stands for the sequence: the
    user has changed it.
    """

    session: Session
    def __len__(self) -> int: ...
    def handle(self, index: int) -> Handle[T]: ...  # the same task, a hold of its own
    def release(self) -> None: ...

class Session:
    """One client's connection to a scheduler (in this process or another)."""

    id: str
    address: str
    status: str  # 'running' 'closed' 'lost'
    def submit(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        key: Hashable | None,
        options: Options | None,
    ) -> Handle[Any]: ...
    def map(
        self,
        func: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        kwargs: dict[str, Any] | None,
        key: str | list[Hashable] | None,
        options: Options | None,
    ) -> Handles[Any]: ...
    # `iterables` are zipped; a Handles among them stands for its futures; a `range` is never
    # expanded
    def graph(
        self,
        tasks: Sequence[
            tuple[Hashable, Callable[..., Any], tuple[Any, ...], dict[str, Any] | None]
        ],
        outputs: Sequence[Hashable],
        options: Options | None,
        annotations: Mapping[Hashable, Options] | None,
        fuse: bool,
    ) -> list[Handle[Any]]: ...
    # arguments hold `Ref`s and Handles, nested in lists, tuples, dicts and sets; tasks not needed
    # by `outputs` are culled; raises ValueError naming one cycle where there is one, KeyError
    # naming a missing key
    def scatter(
        self,
        values: Sequence[Any],
        keys: Sequence[Hashable] | None,
        workers: Sequence[str] | None,
        broadcast: bool,
        timeout: float | None,
    ) -> list[Handle[Any]]: ...
    def values(
        self,
        handles: Sequence[Handle[Any]] | Handles[Any],
        skip_errors: bool,
        timeout: float | None,
    ) -> list[Any]: ...
    def wait(
        self, handles: Sequence[Handle[Any]] | Handles[Any], count: int, timeout: float | None
    ) -> bool: ...
    # until `count` of them have ended; False on time-out
    def adopt(self, key: Hashable) -> Handle[Any]: ...
    # a future for a key that exists on the scheduler (Future(key))
    def cancel(self, handles: Sequence[Handle[Any]], reason: str) -> None: ...
    def retry(self, handles: Sequence[Handle[Any]]) -> None: ...
    def query(self, what: str, argument: Any = None, timeout: float | None = None) -> Any: ...
    # 'scheduler_info' 'who_has' 'has_what' 'nthreads' 'processing' 'call_stack' 'events'
    # 'log_event' 'explain' 'story'
    # 'call': (func, args, kwargs) of the task with this key, or of the task whose failure it
    # carries; Handles as inputs
    def run(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        workers: Sequence[str] | None,
        wait: bool,
        timeout: float | None,
    ) -> dict[str, Any]: ...
    # worker address -> result or exception object; out of band, also on busy workers
    def restart(self, timeout: float | None) -> None: ...
    def flush(self) -> None: ...  # everything submitted so far is on its way
    def bytes_sent(self) -> int: ...
    def close(self, timeout: float | None = None) -> None: ...

class LocalCluster:
    """Scheduler and workers as threads of this process; executors as threads or processes."""

    def __init__(
        self,
        *,
        n_workers: int,
        threads_per_worker: int,
        processes: bool,
        memory_limit: int,
        memory: Mapping[str, float] | None = None,
        name: str | None,
        local_directory: str | None,
        resources: Mapping[str, float] | None,
        listen: str | None,
        preload: Sequence[str],
    ) -> None: ...
    address: str  # 'tcp://127.0.0.1:port' when listening, else 'inproc://…'
    def connect(self, name: str | None = None) -> Session: ...
    def close(self, timeout: float | None = None) -> None: ...

def connect(
    address: str,
    *,
    token_file: str | None,
    tls_ca_file: str | None,
    tls_fingerprint: str | None,
    name: str | None,
    timeout: float,
) -> Session: ...
def run_scheduler(
    *,
    host: str,
    port: int,
    scheduler_file: str | None,
    token_file: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    insecure: bool,
    name: str | None,
    idle_timeout: float | None,
    preload: Sequence[str],
) -> int: ...  # blocks; Ctrl-C and SIGTERM end it cleanly; the exit status
def run_worker(
    address: str | None,
    *,
    scheduler_file: str | None,
    host: str | None,
    port: int,
    name: str | None,
    nthreads: int,
    nworkers: int,
    memory_limit: int,
    memory: Mapping[str, float] | None,
    resources: Mapping[str, float] | None,
    preload: Sequence[str],
    local_directory: str | None,
    token_file: str | None,
    tls_ca_file: str | None,
    tls_fingerprint: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    insecure: bool,
    processes: bool,
    python: bool,
    death_timeout: float | None,
    lifetime: dict[str, Any] | None,
) -> int: ...
def executor_main() -> None: ...  # serves the worker at standard input; never returns
def register_classes(
    future: type, futures: type, errors: Mapping[str, type[BaseException]]
) -> None: ...
# errors by name: 'CancelledError' 'KilledWorker' 'TimeoutError' 'LostError'
# 'SchedulerClosedError' …
def current_task() -> dict[str, Any] | None: ...
# inside a task: 'key', 'worker_address', 'worker_name', 'address' (of the scheduler)
def running_tasks() -> list[tuple[int, str]]: ...
# threads and keys of the tasks that run in this process
def secede() -> None: ...
def rejoin() -> None: ...

class Parts:
    """What a task reads of an exchange: read-only views, in the order of part and writer."""

    @property
    def n_writers(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def places(self) -> list[tuple[int, int]]: ...  # number and writer of each part
    def tables(self) -> list[Any]: ...  # for parts that are Arrow streams
    def __len__(self) -> int: ...  # parts that are not empty
    def __getitem__(self, at: int) -> memoryview: ...
    def __iter__(self) -> Iterator[memoryview]: ...

class Parted:
    """What a task gives that writes to an exchange: whatever lends the bytes of each part."""

    def __init__(self, parts: Sequence[Any]) -> None: ...
    def __len__(self) -> int: ...

def exchange(
    session: Session,
    write: Callable[..., Parted],
    args: Sequence[tuple[Any, ...]],
    read: Callable[[Parts], Any],
    ranges: Sequence[tuple[int, int]],
) -> list[Any]: ...  # a writer for each of `args`, a future of a reader for each of `ranges`

class SqlFragment:
    def __init__(
        self, code: bytes, functions: Sequence[tuple[str, Callable[..., Any], Any, bool]]
    ) -> None: ...
    def __call__(self, partition: int, *inputs: Parts) -> Parted: ...

class SqlQuery:
    def schema(self) -> Any: ...
    def columns(self) -> list[str]: ...
    def collect(self) -> Any: ...
    def read(self) -> Any: ...
    def is_done(self) -> bool: ...
    def submit(
        self, session: Session, n_slots: int, whole_nbytes: int, range_nbytes: int
    ) -> list[Any] | None: ...
    def n_ended(self, session: Session, timeout: float) -> tuple[int, int]: ...
    def n_rows_read(self) -> int: ...
    def forget_tables(self) -> None: ...
    def explain_stages(
        self, n_slots: int, whole_nbytes: int, range_nbytes: int, verbose: bool
    ) -> str | None: ...
    def explain(self, analyze: bool = False, verbose: bool = False) -> str: ...

class SqlContext:
    def __init__(
        self,
        threads: int = 0,
        memory_limit: int | None = None,
        spill_folder: str | None = None,
    ) -> None: ...
    def create_files(
        self,
        name: str,
        locations: list[str],
        *,
        format: str | None = None,
        format_options: dict[str, str] | None = None,
        schema: Any = None,
        hive: bool = True,
        store_options: dict[str, str] | None = None,
    ) -> None: ...
    def create_batches(self, name: str, table: Any) -> None: ...
    def write(
        self,
        query: SqlQuery,
        target: str,
        format: str,
        options: dict[str, str],
        partition_by: list[str],
        elsewhere: Callable[[SqlQuery], Any],
    ) -> int: ...
    def create_function(
        self, name: str, function: Any, schema: Any, is_aggregate: bool
    ) -> None: ...
    def drop_table(self, name: str) -> None: ...
    def tables(self) -> list[tuple[str, str, str]]: ...
    def schema_of(self, name: str) -> Any: ...
    def sql(
        self, text: str, parameters: Any, elsewhere: Callable[[SqlQuery], Any]
    ) -> SqlQuery: ...

class Texts:
    def __init__(self, rows: Any, kind: str, n_rows_max: int = 0) -> None: ...
    @property
    def n_rows(self) -> int: ...
    def __iter__(self) -> Texts: ...
    def __next__(self) -> str: ...
