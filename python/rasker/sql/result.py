"""The answer to a statement, made when it is asked for."""

from __future__ import annotations

from rasker.sql import progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    import os
    from rasker._native import SqlContext, SqlQuery

_N_SHOWN = 10

# Of a statement whose tables in memory were lost.
_N_ATTEMPTS = 3


class Result:
    """A planned statement: columns are known, rows are made when they are asked for.

    It offers an Arrow stream (``__arrow_c_stream__``), so that libraries which know Arrow take it
    as it is: ``pyarrow.table(result)``, ``polars.DataFrame(result)``.

    Parameters
    ----------
    context : SqlContext
        The engine's, of the statement.
    query : SqlQuery
        The engine's.
    client : Client, optional
        Whose workers make the rows; ``None`` means the current client's if there is one, and
        ``False`` this process.
    """

    def __init__(self, context: SqlContext, query: SqlQuery, client: Any = None) -> None:
        self._context = context
        self._query = query
        self._client = client
        self._kept: Any = None

    @property
    def schema(self) -> Any:
        """The columns with their types, a `pyarrow.Schema`."""
        import pyarrow as pa

        return pa.schema(self._query.schema())

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        return self._query.columns()

    def _table(self) -> Any:
        if self._kept is not None:
            return self._kept
        tables = self._by_workers()
        return self._query.collect() if tables is None else _one(self.schema, tables)

    def _futures(self) -> list[Any] | None:
        """Futures of the rows, in order, if workers are to make them."""
        if self._query.is_done():
            return None
        client = self._current()
        session = None if client is None else client._session
        futures = None
        if session is not None:
            futures = self._query.submit(session, *_sizes(client))
        progress.began(self._query, session if futures is not None else None)
        return futures

    def _by_workers(self) -> list[Any] | None:
        """What the last tasks give, each a `pyarrow.Table`; `None` if it is to be made here."""
        from rasker.exceptions import LostError

        for attempt in range(_N_ATTEMPTS):
            futures = self._futures()
            if futures is None:
                return None
            try:
                return [future.result() for future in futures]
            except LostError:
                # Tables of this process that were lost with workers are brought again.
                if attempt + 1 == _N_ATTEMPTS:
                    raise
                self._query.forget_tables()
        return None

    def _made_by_workers(self) -> Any:
        import pyarrow as pa

        tables = self._by_workers()
        return None if tables is None else pa.concat_tables(tables)

    def to_futures(self) -> list[Any]:
        """The rows as futures of `pyarrow.Table`, in order, for Python to go on with.

        Raises
        ------
        ValueError
            If there is no client.
        SqlNotSupportedError
            If the statement runs in this process only: see `Context`.
        """
        futures = self._futures()
        if futures is not None:
            return futures
        if self._current() is None:
            raise ValueError("there is no client: make one, or give it to the Context")
        from rasker.exceptions import SqlNotSupportedError

        raise SqlNotSupportedError(
            "this statement runs in the client's process only; ask for its rows with to_arrow()"
        )

    def _current(self) -> Any:
        """The client whose workers make the rows, or None."""
        if self._client is False:
            return None
        if self._client is not None:
            return self._client
        from rasker.distributed import defaults

        return defaults.current_client()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        if self._kept is not None:
            source = self._kept
        else:
            tables = self._by_workers()
            source = self._query.read() if tables is None else _one(self.schema, tables)
        return source.__arrow_c_stream__(requested_schema)

    def to_arrow(self) -> Any:
        """All rows as a `pyarrow.Table`, exact: decimals stay decimals.

        Without ``ORDER BY``, rows of a query that only filters and computes come in the order of
        the files; of others, in any order.
        """
        import pyarrow as pa

        return pa.table(self._table())

    def compute(self, *, dtype_backend: str | None = None) -> Any:
        """All rows as a `pandas.DataFrame`.

        Parameters
        ----------
        dtype_backend : {"numpy_nullable", "pyarrow"}, optional
            As in `pandas.read_parquet`. Default: NumPy's types, where missing integers make a
            column of floats.

        Returns
        -------
        pandas.DataFrame
            With a RangeIndex. Decimals become float64 and dates datetime64, unless
            ``dtype_backend="pyarrow"``; use `to_arrow` for exact decimals.
        """
        table = self.to_arrow()
        if dtype_backend == "pyarrow":
            import pandas as pd

            return table.to_pandas(types_mapper=pd.ArrowDtype)
        if dtype_backend == "numpy_nullable":
            return _to_nullable(_without_decimals(table))
        if dtype_backend is not None:
            raise ValueError(
                f"dtype_backend is 'numpy_nullable', 'pyarrow' or None, not {dtype_backend!r}"
            )
        return _without_decimals(table).to_pandas(date_as_object=False)

    def to_pandas(self, *, dtype_backend: str | None = None) -> Any:
        """The same as `compute`."""
        return self.compute(dtype_backend=dtype_backend)

    df = to_pandas

    def to_polars(self) -> Any:
        """All rows as a `polars.DataFrame`."""
        import polars as pl

        return pl.from_arrow(self.to_arrow())

    def to_pylist(self) -> list[dict[str, Any]]:
        """All rows as dictionaries."""
        rows: list[dict[str, Any]] = self.to_arrow().to_pylist()
        return rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows as tuples."""
        columns = [column.to_pylist() for column in self.to_arrow().columns]
        return list(zip(*columns, strict=True))

    def persist(self) -> Result:
        """The same rows, kept in memory: they are made now, and not again."""
        kept = Result(self._context, self._query, self._client)
        kept._kept = self._table()
        return kept

    def batches(self) -> Iterator[Any]:
        """Rows as they come, a `pyarrow.RecordBatch` at a time."""
        import pyarrow as pa

        yield from pa.RecordBatchReader.from_stream(self)

    __iter__ = batches

    def __len__(self) -> int:
        return int(self.to_arrow().num_rows)

    def to_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        partition_by: list[str] | None = None,
        overwrite: bool = False,
        append: bool = False,
        compression: str | None = None,
        **options: Any,
    ) -> int:
        """Write all rows to Parquet files.

        Parameters
        ----------
        path : path or URL
            Of one file if it has an extension, else of a folder that gets one file per thread or
            task. Where there is a client, workers write them: to a file system that they and this
            process share, or to a store of objects. Files appear when all of them are whole, and
            none appears if something goes wrong.
        partition_by : list of str, optional
            Columns whose values become names of folders, ``year=2024/``.
        overwrite, append : bool, optional
            What is to become of files that the folder holds already; neither is an error.
        compression : str, optional
            ``"zstd(3)"``, ``"snappy"``, ``"uncompressed"`` … Default: zstd.
        **options
            Of the format, such as ``max_row_group_size``.

        Returns
        -------
        int
            Rows written.
        """
        if compression is not None:
            options["compression"] = compression
        return self._write(path, "parquet", options, partition_by, overwrite, append)

    def to_csv(
        self,
        path: str | os.PathLike[str],
        *,
        partition_by: list[str] | None = None,
        overwrite: bool = False,
        append: bool = False,
        **options: Any,
    ) -> int:
        """Write all rows to CSV files: ``delimiter``, ``header`` and the like are options.

        See `to_parquet` for the other parameters and what is returned.
        """
        return self._write(path, "csv", options, partition_by, overwrite, append)

    def to_json(
        self,
        path: str | os.PathLike[str],
        *,
        partition_by: list[str] | None = None,
        overwrite: bool = False,
        append: bool = False,
        **options: Any,
    ) -> int:
        """Write all rows as JSON, an object on each line.

        See `to_parquet` for the parameters and what is returned.
        """
        return self._write(path, "json", options, partition_by, overwrite, append)

    def _write(
        self,
        path: Any,
        format: str,
        options: dict[str, Any],
        partition_by: list[str] | None,
        overwrite: bool,
        append: bool,
    ) -> int:
        from rasker.sql.context import format_options, path_text

        texts = format_options(options)
        if overwrite or append:
            texts["overwrite" if overwrite else "append"] = "true"

        def made(query: SqlQuery) -> Any:
            return Result(self._context, query, self._client)._made_by_workers()

        at = path_text(path)
        return self._context.write(self._query, at, format, texts, partition_by or [], made)

    def explain(self, *, analyze: bool = False, verbose: bool = False) -> str:
        """How it would be run, or with `analyze` how it was: rows and times of each step.

        Where workers make the rows, the plan is that of each stage of tasks, and which stages it
        reads.

        Parameters
        ----------
        analyze : bool, optional
            Run it in this process and say what each step did.
        verbose : bool, optional
            Also how the plan came about; of stages, more of each step.
        """
        client = None if analyze else self._current()
        if client is not None:
            stages = self._query.explain_stages(*_sizes(client), verbose)
            if stages is not None:
                return stages
        return self._query.explain(analyze, verbose)

    def __repr__(self) -> str:
        names = ", ".join(f"{field.name}: {field.type}" for field in self.schema)
        return f"<rasker.sql.Result ({names})>"

    def _repr_html_(self) -> str:
        import pandas as pd

        rows: list[Any] = []
        for batch in self.batches():
            rows.append(batch.slice(0, _N_SHOWN).to_pandas())
            if sum(map(len, rows)) > _N_SHOWN:
                break
        frame = pd.concat(rows) if rows else self.schema.empty_table().to_pandas()
        html: str = frame.head(_N_SHOWN).to_html(index=False)
        return html


def _sizes(client: Any) -> tuple[int, int, int]:
    """Tasks that run at once; bytes below which a query, and a result in order, is one task."""
    from rasker import config
    from rasker.utils import parse_bytes

    whole = int(parse_bytes(config.get("sql.whole-below", "64 MiB")))
    slots = sum(client.nthreads().values()) or 1
    # Rows in order move once more where they are shared out: a few tasks merge them sooner alone,
    # as long as the result is no burden to one of them.
    above = "32 MiB" if slots >= 4 else "512 MiB"
    ranged = int(parse_bytes(config.get("sql.range-above", above)))
    return slots, whole, ranged


def _one(schema: Any, tables: list[Any]) -> Any:
    import pyarrow as pa

    return pa.concat_tables([table.cast(schema) for table in tables])


def _without_decimals(table: Any) -> Any:
    import pyarrow as pa

    for at, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type):
            floats = field.with_type(pa.float64())
            table = table.set_column(at, floats, table.column(at).cast(pa.float64()))
    return table


def _to_nullable(table: Any) -> Any:
    import pandas as pd
    import pyarrow as pa

    types = {
        pa.int8(): pd.Int8Dtype(),
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.uint8(): pd.UInt8Dtype(),
        pa.uint16(): pd.UInt16Dtype(),
        pa.uint32(): pd.UInt32Dtype(),
        pa.uint64(): pd.UInt64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
        pa.float32(): pd.Float32Dtype(),
        pa.float64(): pd.Float64Dtype(),
        pa.string(): pd.StringDtype(),
        pa.large_string(): pd.StringDtype(),
    }
    return table.to_pandas(types_mapper=types.get, date_as_object=False)
