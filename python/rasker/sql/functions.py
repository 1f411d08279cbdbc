"""Python functions that statements may call."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

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


def over_columns(
    function: Callable[..., Any], kind: str, returns: Any, aggregate: bool
) -> Callable[..., Any]:
    """The function as the engine calls it: Arrow arrays in, an Arrow array out."""
    import pyarrow as pa

    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")

    def as_array(made: Any) -> Any:
        if isinstance(made, pa.Array):
            return made
        if isinstance(made, pa.ChunkedArray):
            return made.combine_chunks()
        if isinstance(made, pa.Scalar):
            return pa.array([made.as_py()], returns)
        if aggregate:
            return pa.array([made.item() if hasattr(made, "item") else made], returns)
        return pa.array(made, returns, from_pandas=True)

    def call(*columns: Any) -> Any:
        if kind == "arrow":
            return as_array(function(*columns))
        if kind == "pandas":
            return as_array(function(*[column.to_pandas() for column in columns]))
        values = [column.to_pylist() for column in columns]
        if aggregate:
            return as_array(function(*values))
        return pa.array([function(*row) for row in zip(*values, strict=True)], returns)

    return call


def schema(takes: Sequence[Any], returns: Any) -> Any:
    """The types of the arguments and, last, of the result."""
    import pyarrow as pa

    types = [*map(data_type, takes), data_type(returns)]
    return pa.schema([(f"{at}", kind) for at, kind in enumerate(types)])
