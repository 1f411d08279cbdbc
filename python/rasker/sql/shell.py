"""`rasker sql`: statements from the command line, from files, from a prompt."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

from rasker.sql.progress import watching

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any, TextIO

    from rasker.sql.context import Context
    from rasker.sql.progress import Watch
    from rasker.sql.result import Result

# Rows that the prompt shows of a long answer.
_N_SHOWN = 40
_HISTORY_MAX = 2000
_PROGRESS_AFTER = 1.0
_PROGRESS_EVERY = 0.2

_KEYWORDS = (
    "SELECT FROM WHERE GROUP ORDER BY HAVING LIMIT OFFSET JOIN LEFT RIGHT FULL INNER OUTER CROSS "
    "ON USING UNION INTERSECT EXCEPT ALL DISTINCT AS AND OR NOT IN EXISTS BETWEEN LIKE ILIKE IS "
    "NULL CASE WHEN THEN ELSE END CAST WITH RECURSIVE OVER PARTITION CREATE TABLE VIEW EXTERNAL "
    "STORED LOCATION INSERT INTO VALUES COPY TO DROP DESCRIBE SHOW TABLES EXPLAIN ANALYZE SET "
    "count sum avg min max"
).split()

_HELP = """\
A statement ends with ; and may have several lines. Besides SQL there are
  .tables            names of tables
  .schema NAME       columns of a table
  .mode table|csv|json
  .read FILE         statements from a file
  .help  .quit
"""


def add_parser(commands: Any) -> None:
    p = commands.add_parser("sql", help="ask questions about files and tables in SQL")
    p.add_argument("files", nargs="*", help="files with statements; without any, a prompt")
    p.add_argument(
        "-c",
        "--command",
        dest="texts",
        action="append",
        default=[],
        help="statements to run; repeatable",
    )
    p.add_argument(
        "-f", "--format", choices=["table", "csv", "json"], help="of answers (table)", default=None
    )
    p.add_argument("-o", "--output", help="file for answers (standard output)")
    p.add_argument("--scheduler", help="address of a cluster that is to run statements")
    p.add_argument("--scheduler-file", help="file that names the cluster")
    p.add_argument("--threads", type=int, help="threads that compute (one per core)")
    p.add_argument("--memory-limit", help="memory of operators before they use the disk")
    p.add_argument("-q", "--quiet", action="store_true", help="no progress, no counts of rows")


def run(arguments: argparse.Namespace) -> int:
    """Run `rasker sql` with parsed arguments; the exit status."""
    with contextlib.ExitStack() as stack:
        try:
            shell = _open(arguments, stack)
        except (OSError, ValueError) as error:
            print(f"rasker sql: {error}", file=sys.stderr)
            return 2
        texts = list(arguments.texts)
        for path in arguments.files:
            try:
                with open(path, encoding="utf-8") as file:
                    texts.append(file.read())
            except OSError as error:
                print(f"rasker sql: {path}: {error.strerror}", file=sys.stderr)
                return 2
        if texts:
            return 0 if all(shell.run(text) for text in texts) else 1
        if not sys.stdin.isatty():
            return 0 if shell.run(sys.stdin.read()) else 1
        shell.prompt()
        return 0


def _open(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> _Shell:
    from rasker.sql.context import Context

    client: Any = False
    if arguments.scheduler or arguments.scheduler_file:
        from rasker.distributed import Client

        client = stack.enter_context(
            Client(arguments.scheduler, scheduler_file=arguments.scheduler_file)
            if arguments.scheduler_file
            else Client(arguments.scheduler)
        )
    context = Context(client, threads=arguments.threads, memory_limit=arguments.memory_limit)
    out = sys.stdout
    if arguments.output:
        out = stack.enter_context(open(arguments.output, "w", encoding="utf-8"))
    return _Shell(context, arguments.format or "table", out, arguments.quiet)


class _Shell:
    def __init__(self, context: Context, mode: str, out: TextIO, quiet: bool) -> None:
        self.context = context
        self.mode = mode
        self.out = out
        self.quiet = quiet
        self.n_shown = 0

    def run(self, text: str) -> bool:
        """Run statements; says what went wrong and returns False then."""
        if not text.strip(" \t\r\n;"):
            return True
        start = time.perf_counter()
        try:
            with _progress(not self.quiet):
                result = self.context.sql(text)
                texts = self._texts(result)
                first = next(texts, None)
            self._write(first, texts)
        except BrokenPipeError:
            # Whoever read the answers wants no more of them.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return False
        except KeyboardInterrupt:
            print("cancelled", file=sys.stderr)
            return False
        except Exception as error:
            print(f"error: {error}", file=sys.stderr)
            return False
        if self.mode == "table" and not self.quiet and result.columns:
            n = texts.n_rows
            rows = "1 row" if n == 1 else f"{n:,} rows"
            cut = f", {self.n_shown} shown" if 0 < self.n_shown < n else ""
            print(f"{rows}{cut} ({time.perf_counter() - start:.3f} s)", file=sys.stderr)
        return True

    def _texts(self, result: Result) -> Any:
        from rasker import _native

        return _native.Texts(result, self.mode, self.n_shown)

    def _write(self, first: str | None, rest: Any) -> None:
        if first is not None:
            self.out.write(first)
            if self.mode == "table":
                self.out.write("\n")
        for text in rest:
            self.out.write(text)
        self.out.flush()

    def prompt(self) -> None:
        """Read statements from a terminal until its end."""
        self.n_shown = _N_SHOWN
        from rasker._version import __version__

        print(f"rasker {__version__}; end statements with ; and see .help")
        pending = ""
        with _history(self.context):
            while True:
                try:
                    line = input("sql> " if not pending else "...> ")
                except EOFError:
                    print()
                    return
                except KeyboardInterrupt:
                    pending = ""
                    print()
                    continue
                if not pending and line.strip().startswith("."):
                    if not self._command(line.split()):
                        return
                    continue
                pending += line + "\n"
                if line.rstrip().endswith(";"):
                    self.run(pending)
                    pending = ""

    def _command(self, words: list[str]) -> bool:
        name, rest = words[0], words[1:]
        if name in (".quit", ".exit", ".q"):
            return False
        if name == ".tables":
            print("\n".join(self.context.tables()) or "no tables")
        elif name == ".schema" and rest:
            try:
                for field in self.context.schema(rest[0]):
                    print(f"{field.name}  {field.type}")
            except ValueError as error:
                print(f"error: {error}", file=sys.stderr)
        elif name == ".mode" and rest and rest[0] in ("table", "csv", "json"):
            self.mode = rest[0]
        elif name == ".read" and rest:
            try:
                with open(rest[0], encoding="utf-8") as file:
                    self.run(file.read())
            except OSError as error:
                print(f"error: {rest[0]}: {error.strerror}", file=sys.stderr)
        else:
            print(_HELP, end="")
        return True


@contextlib.contextmanager
def _progress(wanted: bool) -> Iterator[None]:
    """Says on a terminal how far a statement has come, from the first second on."""
    if not wanted or not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()

    def tell(watch: Watch) -> None:
        start = time.perf_counter()
        if ended.wait(_PROGRESS_AFTER):
            return
        width = 0
        while not ended.wait(_PROGRESS_EVERY):
            said = watch.text()
            line = f"{time.perf_counter() - start:6.1f} s" + (f"  {said}" if said else "")
            print(f"\r{line:{width}}", end="", file=sys.stderr, flush=True)
            width = len(line)
        print(f"\r{'':{width}}\r", end="", file=sys.stderr, flush=True)

    with watching() as watch:
        teller = threading.Thread(target=tell, args=(watch,), daemon=True)
        teller.start()
        try:
            yield
        finally:
            ended.set()
            teller.join()


@contextlib.contextmanager
def _history(context: Context) -> Iterator[None]:
    """Editing, history and completion, where Python has them."""
    try:
        import readline
    except ImportError:
        yield
        return
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    path = os.path.join(base, "rasker", "sql_history")
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(_HISTORY_MAX)

    def complete(text: str, state: int) -> str | None:
        if state == 0:
            names = [*_KEYWORDS, *context.tables()]
            for table in context.tables():
                with contextlib.suppress(Exception):
                    names += context.schema(table).names
            found[:] = sorted({n for n in names if n.lower().startswith(text.lower())})
        return found[state] if state < len(found) else None

    found: list[str] = []
    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            readline.write_history_file(path)
