"""Values for the placeholders of a statement."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Mapping, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EPOCH = datetime.date(1970, 1, 1)
_EPOCH_TIME = datetime.datetime(1970, 1, 1)  # noqa: DTZ001 - times without a zone count from it
_EPOCH_UTC = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_MICROSECOND = datetime.timedelta(microseconds=1)


def read(parameters: Any) -> Any:
    """Pairs of a kind and a plain value, for the engine.

    Parameters
    ----------
    parameters : sequence, mapping or None
        For ``?`` and ``$1``, or for ``$name``.

    Raises
    ------
    TypeError
        For values that SQL has no type for.
    """
    if parameters is None:
        return None
    if isinstance(parameters, Mapping):
        return {str(name).lstrip("$"): pair(value) for name, value in parameters.items()}
    if isinstance(parameters, Sequence) and not isinstance(parameters, (str, bytes)):
        return [pair(value) for value in parameters]
    raise TypeError(
        f"parameters are a list for ? and $1, or a dict for $name, not {type(parameters).__name__}"
    )


def pair(value: Any) -> tuple[str, Any]:
    """The kind of one value, and the value in that kind's plain form."""
    if hasattr(value, "item") and not isinstance(value, (str, bytes)) and not hasattr(value, "value"):
        value = value.item()  # a NumPy scalar
    if value is None:
        return "null", None
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, int):
        return "int", value
    if isinstance(value, float):
        return "float", value
    if isinstance(value, str):
        return "text", value
    if isinstance(value, (bytes, bytearray)):
        return "bytes", bytes(value)
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            return "timestamp_utc", (value - _EPOCH_UTC) // _MICROSECOND
        return "timestamp", (value - _EPOCH_TIME) // _MICROSECOND
    if isinstance(value, datetime.date):
        return "date", (value - _EPOCH).days
    if isinstance(value, datetime.timedelta):
        return "duration", value // _MICROSECOND
    if isinstance(value, decimal.Decimal):
        return _decimal(value)
    raise TypeError(
        f"a parameter of type {type(value).__name__} has no SQL type; give a number, text, bytes, "
        "a date or time, a Decimal, or None"
    )


def _decimal(value: decimal.Decimal) -> tuple[str, Any]:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise TypeError(f"{value} has no SQL type; give a finite Decimal")
    text = "".join(map(str, digits)) + "0" * max(exponent, 0)
    scale = max(-exponent, 0)
    precision = max(len(text), scale, 1)
    return "decimal", (f"-{text}" if sign else text, precision, scale)
