"""Tables by name, and statements over them."""

from __future__ import annotations

import os
import re
import threading

from rasker.sql import parameters as _parameters
from rasker.sql.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from rasker._native import SqlQuery

_lock = threading.Lock()
_shared: list[Context] = []

# Options of text files, in pandas' and DuckDB's names, by the engine's.
_FORMAT_OPTIONS = {
    "sep": "delimiter",
    "delim": "delimiter",
    "header": "has_header",
    "quotechar": "quote",
    "escapechar": "escape",
    "na_values": "null_values",
    "nullstr": "null_values",
    "lines": "newline_delimited",
}


class Context:
    """Tables by name, and statements over them.

    Without a client, statements run within this process, on all cores unless `threads` says
    otherwise. With one they become tasks of its cluster: rows are read, shared out, joined and
    written by its workers, without Python but for the functions of `create_function`. Paths are
    then looked up both here, when a statement is planned, and on the workers, when it runs. Tables
    in memory are brought to the workers by the first statement that reads them there. What only
    lists (``information_schema``, ``EXPLAIN``), Arrow files that are written, and window functions
    with ``FILTER`` or ``IGNORE NULLS`` run in this process in any case; `Result.to_futures`
    refuses those.

    Parameters
    ----------
    client : Client, optional
        Where statements run. Default: the client that is current when a result is asked for, if
        there is one. ``False`` means this process in any case.
    threads : int, optional
        Threads that compute. Default: the configuration key ``sql.threads``, else one per core.
    memory_limit : int or str, optional
        Bytes, or text such as ``"2 GB"``, that operators may hold before they put data on disk.
        Default: the configuration key ``sql.memory-limit``, else no limit.
    spill_directory : path, optional
        Where data goes that does not fit. Default: the system's folder for such files.

    Notes
    -----
    On a cluster two more configuration keys say how a statement is shared out. One that reads
    fewer bytes than ``sql.whole-below`` (default ``"64 MiB"``) is a single task. Rows that
    ``ORDER BY`` puts into order are merged by one task if they take fewer bytes than
    ``sql.range-above``, by estimate, and else by all, each of which has a range of them (default
    ``"512 MiB"``, with four threads or more ``"32 MiB"``).

    Examples
    --------
    >>> from rasker.sql import Context
    >>> ctx = Context()
    >>> ctx.sql("SELECT 1 + 1 AS two").to_pylist()
    [{'two': 2}]
    """

    def __init__(
        self,
        client: Any = None,
        *,
        threads: int | None = None,
        memory_limit: int | str | None = None,
        spill_directory: str | os.PathLike[str] | None = None,
    ) -> None:
        from rasker import _native, config
        from rasker.utils import parse_bytes

        if threads is None:
            threads = config.get("sql.threads", None)
        if memory_limit is None:
            memory_limit = config.get("sql.memory-limit", None)
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be 1 or more, not {threads}")
        limit = None if memory_limit is None else int(parse_bytes(memory_limit))
        folder = None if spill_directory is None else os.fspath(spill_directory)
        self._native = _native.SqlContext(threads or 0, limit, folder)
        self._client = client

    def create_table(
        self,
        name: str,
        source: Any,
        *,
        format: str | None = None,
        schema: Any = None,
        storage_options: Mapping[str, Any] | None = None,
        hive_partitioning: bool = True,
        **options: Any,
    ) -> None:
        """Give a table a name; one of that name is replaced.

        Parameters
        ----------
        name : str
            Of the table; ``schema.name`` for one in a schema of its own.
        source : path, list of path, or table
            A file, a folder or a pattern (``data/*.parquet``, ``s3://bucket/year=*/``), on disk,
            in S3, over HTTP, in Google's or Azure's stores; or a table in memory: pandas, pyarrow,
            polars, a `Result`, whatever offers an Arrow stream.
        format : {"parquet", "csv", "json", "arrow"}, optional
            Default: by the name of the first file.
        schema : pyarrow.Schema or mapping of str to pyarrow.DataType, optional
            Columns and types. Default: as the files say, or as the first rows of text look.
        storage_options : mapping, optional
            For the store, in fsspec's names: ``key``, ``secret``, ``token``, ``anon``,
            ``endpoint_url``, ``region``, ``profile``. Default: the environment, then the user's
            AWS files.
        hive_partitioning : bool, optional
            Whether ``name=value`` in folders' names makes a column.
        **options
            Of the format: for text ``delimiter``, ``header``, ``quote``, ``escape``, ``comment``,
            ``null_values`` (a text or a list of them), ``compression``, ``newlines_in_values``.

        Raises
        ------
        FileNotFoundError, PermissionError
        SqlError
            If the files are damaged, or do not fit together.
        """
        locations = _locations(source)
        if locations is None:
            if options or format or schema is not None or storage_options:
                raise TypeError("options of files make no sense for a table in memory")
            self._native.create_batches(name, _as_arrow(source))
            return
        self._native.create_files(
            name,
            locations,
            format=format,
            format_options=format_options(options),
            schema=_as_schema(schema),
            hive=hive_partitioning,
            store_options=_store_options(storage_options),
        )

    register = create_table

    def drop_table(self, name: str) -> None:
        """Forget a table; files stay where they are.

        Raises
        ------
        SqlError
            If there is no such table.
        """
        self._native.drop_table(name)

    def tables(self) -> list[str]:
        """Names of the tables and views, sorted; with their schema where it is not the default."""
        return [
            name if schema == "public" else f"{schema}.{name}"
            for schema, name, _ in self._native.tables()
        ]

    def schema(self, name: str) -> Any:
        """The columns of a table, a `pyarrow.Schema`."""
        import pyarrow as pa

        return pa.schema(self._native.schema_of(name))

    def sql(
        self, text: str, params: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> Result:
        """Run statements, separated by ``;``.

        Queries are lazy: rows are made when they are asked for. Everything else (``CREATE``,
        ``INSERT``, ``COPY``, ``SET`` …) is done when this returns.

        Parameters
        ----------
        text : str
        params : sequence or mapping, optional
            Values for ``?`` and ``$1``, ``$2`` …, or for ``$name``.

        Returns
        -------
        Result
            Of the last statement.

        Raises
        ------
        SqlError
            If the text is not SQL, or asks for what is not there.
        """
        query = self._native.sql(text, _parameters.read(params), self._made_by_workers)
        return Result(self._native, query, self._client)

    def _made_by_workers(self, query: SqlQuery) -> Any:
        return Result(self._native, query, self._client)._made_by_workers()

    query = sql
    execute = sql

    def create_function(
        self,
        name: str,
        function: Callable[..., Any],
        takes: Sequence[Any],
        returns: Any,
        *,
        kind: str = "arrow",
        aggregate: bool = False,
    ) -> None:
        """Let statements call a Python function; one of that name is replaced.

        It is called with columns: in this process, or where there is a cluster in executors of
        its workers, which it reaches as any function of a task does. The steps of a statement that
        do not call it run without Python, as ever. A call whose arguments are constants is made
        once, in this process. What it raises is raised where the rows are asked for.

        Parameters
        ----------
        name : str
            In lower case, as SQL lowers names without quotes.
        function : callable
            Over `pyarrow.Array`, `pandas.Series` or rows, as `kind` says. It gives a column of as
            many values, or, as an aggregate, one value for all rows of a group. Rows come in
            batches of some thousand; a group comes whole, its rows in any order.
        takes : sequence of type
            Of the arguments: `pyarrow.DataType`, or names such as ``"int64"``, or ``int``,
            ``float``, ``str``, ``bool``.
        returns : type
        kind : {"arrow", "pandas", "rows"}, optional
            ``"rows"`` calls the function with plain values: once for each row, or as an aggregate
            with lists.
        aggregate : bool, optional

        Raises
        ------
        TypeError
            For what is no type.

        Examples
        --------
        >>> import pyarrow.compute as pc
        >>> from rasker.sql import Context
        >>> ctx = Context(False)
        >>> ctx.create_function("shout", pc.utf8_upper, ["string"], "string")
        >>> ctx.sql("SELECT shout('hello') AS said").to_pylist()
        [{'said': 'HELLO'}]
        """
        from rasker.sql import functions

        call = functions.OverColumns(function, kind, functions.data_type(returns), aggregate)
        self._native.create_function(name, call, functions.schema(takes, returns), aggregate)

    def explain(
        self,
        text: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        analyze: bool = False,
        verbose: bool = False,
    ) -> str:
        """How a statement would be run, or with `analyze` how it was."""
        return self.sql(text, params).explain(analyze=analyze, verbose=verbose)

    def __repr__(self) -> str:
        return f"<rasker.sql.Context, tables: {', '.join(self.tables()) or 'none'}>"


def query(text: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> Result:
    """Answer a question about files: ``FROM 'data/*.parquet'``.

    Parameters
    ----------
    text : str
        Statements; tables that they create are kept for later calls.
    params : sequence or mapping, optional
        Values for ``?`` and ``$1``, or for ``$name``.

    Returns
    -------
    Result
    """
    with _lock:
        if not _shared:
            _shared.append(Context())
    return _shared[0].sql(text, params)


def _locations(source: Any) -> list[str] | None:
    """Paths, if the source is made of them."""
    if isinstance(source, (str, os.PathLike)):
        return [path_text(source)]
    if isinstance(source, (list, tuple, set)):
        if not source:
            raise ValueError("a table needs at least one path")
        if all(isinstance(item, (str, os.PathLike)) for item in source):
            return [path_text(item) for item in source]
    return None


def path_text(path: str | os.PathLike[str]) -> str:
    """A path or URL as text."""
    text = os.fspath(path)
    # pathlib swallows one of the slashes of a URL.
    return re.sub(r"^([a-z][a-z0-9+]+):/(?=[^/])", r"\1://", text)


def _as_arrow(source: Any) -> Any:
    if type(source).__module__.partition(".")[0] == "pandas":
        import pyarrow as pa

        return pa.Table.from_pandas(source, preserve_index=False)
    if hasattr(source, "__arrow_c_stream__"):
        return source
    if isinstance(source, (dict, list)):
        import pyarrow as pa

        return pa.table(source) if isinstance(source, dict) else pa.Table.from_pylist(source)
    if hasattr(source, "__arrow_c_array__"):
        import pyarrow as pa

        return pa.table(pa.record_batch(source))
    if hasattr(source, "compute"):
        return _as_arrow(source.compute())
    raise TypeError(
        f"{type(source).__name__} is no table: give paths, or a table of pandas, pyarrow or polars"
    )


def _as_schema(schema: Any) -> Any:
    if schema is None or hasattr(schema, "__arrow_c_schema__"):
        return schema
    import pyarrow as pa

    return pa.schema(schema)


def format_options(options: Mapping[str, Any]) -> dict[str, str]:
    """Options of a format as the engine names them, as text."""
    return {_FORMAT_OPTIONS.get(key, key): _text(value) for key, value in options.items()}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "\x1f".join(map(str, value))
    return str(value)


def _store_options(options: Mapping[str, Any] | None) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in (options or {}).items():
        if name == "client_kwargs":
            flat.update(_store_options(value))
        elif value is not None:
            flat[name] = _text(value)
    return flat
