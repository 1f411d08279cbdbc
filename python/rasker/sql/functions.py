"""Python functions that statements may call."""

from __future__ import annotations

import pickle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from rasker._native import SqlFragment

KINDS = ("arrow", "pandas", "rows")


def data_type(kind: Any) -> Any:
    """A `pyarrow.DataType` of one, or of its name such as ``"int64"``."""
    import pyarrow as pa

    if isinstance(kind, pa.DataType):
        return kind
    plain = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
    if kind in plain:
        return plain[kind]
    try:
        return pa.type_for_alias(kind)
    except (TypeError, ValueError):
        raise TypeError(
            f"{kind!r} is no type: give a pyarrow.DataType, its name such as 'int64', or int, "
            "float, str, bool"
        ) from None


class OverColumns:
    """A function as the engine calls it: Arrow arrays in, an Arrow array out.

    Parameters
    ----------
    function : callable
        The user's.
    kind : {"arrow", "pandas", "rows"}
        What it takes.
    returns : pyarrow.DataType
    aggregate : bool
        Whether it gives one value for all rows.
    """

    def __init__(
        self, function: Callable[..., Any], kind: str, returns: Any, aggregate: bool
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
        self.function = function
        self.kind = kind
        self.returns = returns
        self.aggregate = aggregate

    def __call__(self, *columns: Any) -> Any:
        if self.kind == "arrow":
            return self._array(self.function(*columns))
        if self.kind == "pandas":
            return self._array(self.function(*[column.to_pandas() for column in columns]))
        import pyarrow as pa

        values = [column.to_pylist() for column in columns]
        if self.aggregate:
            return self._array(self.function(*values))
        # Without columns it is asked for one value that all rows get.
        rows = zip(*values, strict=True) if values else [()]
        return pa.array([self.function(*row) for row in rows], self.returns)

    def _array(self, made: Any) -> Any:
        import pyarrow as pa

        if isinstance(made, pa.Array):
            return made
        if isinstance(made, pa.ChunkedArray):
            return made.combine_chunks()
        if isinstance(made, pa.Scalar):
            return pa.array([made.as_py()], self.returns)
        if self.aggregate:
            value = made.item() if hasattr(made, "item") else made
            return pa.array([value], self.returns, from_pandas=self.kind == "pandas")
        return pa.array(made, self.returns, from_pandas=True)


def schema(takes: Sequence[Any], returns: Any) -> Any:
    """The types of the arguments and, last, of the result."""
    import pyarrow as pa

    types = [*map(data_type, takes), data_type(returns)]
    return pa.schema([(f"{at}", kind) for at, kind in enumerate(types)])


def pickled(name: str, function: OverColumns) -> bytes:
    """A function as it travels to executors.

    Raises
    ------
    TypeError
        If it cannot be pickled; the message names it.
    """
    from rasker import _pickle

    try:
        return _pickle.dumps(function)
    except Exception as error:
        raise TypeError(
            f"the function {name} cannot be sent to workers: {error}; to run the statement in "
            "this process, ask a Context(False)"
        ) from error


def packed(code: bytes, functions: list[tuple[str, bytes, Any, bool]]) -> bytes:
    """The pickle of a stage that calls functions, given by name, pickle, schema and kind."""
    return pickle.dumps(_Packed(code, functions), 5)


class _Packed:
    """Pickles as a stage with its functions, which are read where it is."""

    def __init__(self, code: bytes, functions: list[tuple[str, bytes, Any, bool]]) -> None:
        self.arguments = code, functions

    def __reduce__(self) -> Any:
        return unpacked, self.arguments


# Functions that stages in this process hold, by their pickles: those of one statement share them.
_known: dict[bytes, OverColumns] = {}
_KNOWN_MAX = 64


def unpacked(code: bytes, functions: list[tuple[str, bytes, Any, bool]]) -> SqlFragment:
    """A stage as an executor runs it; each of its functions is read once."""
    from rasker._native import SqlFragment

    def function(pickle_of_it: bytes) -> OverColumns:
        if pickle_of_it not in _known:
            if len(_known) >= _KNOWN_MAX:
                _known.pop(next(iter(_known)))
            _known[pickle_of_it] = pickle.loads(pickle_of_it)
        return _known[pickle_of_it]

    read = [(name, function(own), types, aggregate) for name, own, types, aggregate in functions]
    return SqlFragment(code, read)
