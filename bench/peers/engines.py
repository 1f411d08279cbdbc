"""The peers that ask tables questions in SQL. Each may use two cores."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.peers import Peer

N_CORES = 2


def n_rows(table: Any) -> int:
    return int(table.num_rows)


class Engine(Peer):
    """Knows tables by the paths of their files, and answers with Arrow tables."""

    can = frozenset({"sql", "csv", "ndjson", "warm"})

    def start(self) -> None:
        # All libraries size their pools by the cores they may run on, whatever the machine has.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:N_CORES])
        self.library = import_module(self.package)

    def stop(self) -> None:
        pass

    def open(self, tables: Mapping[str, str], memory_limit: int = 0) -> None:
        """Forget what was known and know these tables; hold no more than so many bytes."""
        raise NotImplementedError

    def ask(self, text: str) -> Any:
        """The answer as an Arrow table."""
        raise NotImplementedError

    def command(self, text: str) -> list[str]:
        """The command line that prints the answer to a text."""
        raise NotImplementedError


class DuckDb(Engine):
    package = "duckdb"

    def open(self, tables: Mapping[str, str], memory_limit: int = 0) -> None:
        limit = {"memory_limit": f"{memory_limit >> 20}MiB"} if memory_limit else {}
        self.connection = self.library.connect(config={"threads": N_CORES, **limit})
        for name, path in tables.items():
            self.connection.execute(f"CREATE VIEW {name} AS SELECT * FROM '{path}'")

    def ask(self, text: str) -> Any:
        return self.connection.sql(text).to_arrow_table()

    def command(self, text: str) -> list[str]:
        return [sys.executable, "-c", f"import duckdb; duckdb.sql({text!r}).show()"]


class DataFusion(Engine):
    package = "datafusion"
    readers = {".parquet": "parquet", ".csv": "csv", ".ndjson": "json"}

    def open(self, tables: Mapping[str, str], memory_limit: int = 0) -> None:
        config = self.library.SessionConfig().with_target_partitions(N_CORES)
        runtime = self.library.RuntimeEnvBuilder()
        if memory_limit:
            runtime = runtime.with_disk_manager_os().with_fair_spill_pool(memory_limit)
        self.context = self.library.SessionContext(config, runtime)
        for name, path in tables.items():
            ending = Path(path).suffix
            more = {"file_extension": ending} if ending == ".ndjson" else {}
            getattr(self.context, f"register_{self.readers[ending]}")(name, path, **more)

    def ask(self, text: str) -> Any:
        return self.context.sql(text).to_arrow_table()


class Polars(Engine):
    package = "polars"

    def open(self, tables: Mapping[str, str], memory_limit: int = 0) -> None:
        if memory_limit:
            raise NotImplementedError("polars has no limit for its memory")
        scan = {
            ".parquet": self.library.scan_parquet,
            ".csv": lambda path: self.library.scan_csv(path, try_parse_dates=True),
            ".ndjson": self.library.scan_ndjson,
        }
        frames = {name: scan[Path(path).suffix](path) for name, path in tables.items()}
        self.context = self.library.SQLContext(frames)

    def ask(self, text: str) -> Any:
        return self.context.execute(text, eager=True).to_arrow()

    def command(self, text: str) -> list[str]:
        # Polars names files by functions where the others read them by name.
        text = text.replace("FROM '", "FROM read_parquet('").replace(".parquet'", ".parquet')")
        return [sys.executable, "-c", f"import polars; print(polars.sql({text!r}, eager=True))"]


class Rasker(Engine):
    """The engine in this process, with a thread for each core."""

    package = "rasker.sql"

    def open(self, tables: Mapping[str, str], memory_limit: int = 0) -> None:
        more: dict[str, Any] = {"memory_limit": memory_limit} if memory_limit else {}
        self.context = self.connected(**more)
        for name, path in tables.items():
            self.context.create_table(name, path)

    def connected(self, **more: Any) -> Any:
        return self.library.Context(False, threads=N_CORES, **more)

    def ask(self, text: str) -> Any:
        return self.context.sql(text).to_arrow()

    def command(self, text: str) -> list[str]:
        return [sys.executable, "-m", "rasker.cli", "sql", "-c", text]


class RaskerWorkers(Rasker):
    """A scheduler and two workers of one thread each, all processes of their own.

    No plan runs whole in one task, so every exchange goes between the workers.
    """

    can = frozenset({"sql", "shuffle"})

    def start(self) -> None:
        super().start()
        import_module("rasker").config.set({"sql.whole-below": 0})
        self.folder = tempfile.TemporaryDirectory()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.limit = -1

    def start_workers(self, memory_limit: int) -> None:
        file = os.path.join(self.folder.name, "scheduler.json")
        command = [sys.executable, "-m", "rasker.cli"]
        scheduler = [*command, "scheduler", "--port", "0", "--scheduler-file", file]
        worker = [*command, "worker", "--scheduler-file", file, "--nworkers", "1"]
        worker += ["--nthreads", "1"]
        if memory_limit:
            worker += ["--memory-limit", str(memory_limit // N_CORES)]
        self.processes = [subprocess.Popen(scheduler)]
        deadline = time.monotonic() + 10
        while not os.path.exists(file) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.processes += [subprocess.Popen(worker) for _ in range(N_CORES)]
        self.client = import_module("rasker.distributed").Client(scheduler_file=file)
        self.client.wait_for_workers(N_CORES)
        self.limit = memory_limit

    def stop_workers(self) -> None:
        if self.processes:
            self.client.close()
        for process in reversed(self.processes):
            process.terminate()
            process.wait(10)
        self.processes = []

    def open(self, tables: Mapping[str, str], memory_limit: int = 0) -> None:
        if memory_limit != self.limit:
            self.stop_workers()
            self.start_workers(memory_limit)
        super().open(tables)

    def connected(self, **more: Any) -> Any:
        return self.library.Context(self.client, **more)

    def ask(self, text: str) -> Any:
        import pyarrow

        # Futures: what cannot run on workers fails here, and does not run in this process.
        result = self.context.sql(text)
        return pyarrow.concat_tables([future.result() for future in result.to_futures()])

    def shuffle(self, path: str, column: str) -> tuple[int, int]:
        """Rows and partitions after all rows with one value have come together."""
        self.open({"t": path})
        moved = self.context.sql(f"SELECT * FROM t DISTRIBUTE BY {column}").to_futures()
        return sum(self.client.gather(self.client.map(n_rows, moved))), len(moved)

    def stop(self) -> None:
        self.stop_workers()
        self.folder.cleanup()


class Dask(Engine):
    """Dask's dataframe on two workers; it has no SQL, so rows bring their own calls."""

    package = "dask.dataframe"
    can = frozenset({"frames", "shuffle"})

    def start(self) -> None:
        super().start()
        distributed = import_module("dask.distributed")
        self.cluster = distributed.LocalCluster(
            n_workers=N_CORES,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=0,
        )
        self.client = distributed.Client(self.cluster)

    def open(self, tables: Mapping[str, str], memory_limit: int = 0) -> None:
        self.tables = dict(tables)

    def frame(self, name: str, **more: Any) -> Any:
        return self.library.read_parquet(self.tables[name], **more)

    def shuffle(self, path: str, column: str) -> tuple[int, int]:
        """The same by P2P."""
        self.open({"t": path})
        with import_module("dask").config.set({"dataframe.shuffle.method": "p2p"}):
            moved = self.frame("t").shuffle(column, npartitions=2 * N_CORES).persist()
            n_rows = int(moved.map_partitions(len).compute().sum())
        return n_rows, N_CORES

    def stop(self) -> None:
        self.client.close()
        self.cluster.close()
