"""Tests in the text form of sqllogictest: statements and queries with the answers they must give.

::

    # a comment
    statement ok
    CREATE TABLE t AS SELECT 1 AS a

    statement error no table nowhere
    SELECT * FROM nowhere

    query IT rowsort
    SELECT a, 'x' FROM t
    ----
    1	x

A letter for each column says what is in it: I integers, R other numbers, T text, B booleans, D dates,
times and intervals, L lists, S structs, M maps; `?` is anything. Columns are separated by tabs, NULL
is a missing value and `(empty)` an empty text. With `rowsort` the order of rows says nothing. After
`error` stands a regular expression that the message must match.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any


@dataclass
class Record:
    """One statement of a file; `line` is where it begins."""

    line: int
    kind: str
    text: str
    error: str = ""
    types: str = ""
    is_sorted: bool = False
    expected: list[str] = field(default_factory=list)


class Malformed(Exception):
    """A file that is not in this form."""


def read(path: Path) -> list[Record]:
    """The records of a file."""
    return list(records(path.read_text().splitlines(), path.name))


def records(lines: list[str], name: str) -> Iterator[Record]:
    place = 0
    while place < len(lines):
        line = lines[place].strip()
        if not line or line.startswith("#"):
            place += 1
            continue
        end = place
        while end < len(lines) and lines[end].strip():
            end += 1
        yield record(lines[place:end], place + 1, name)
        place = end


def record(lines: list[str], number: int, name: str) -> Record:
    head, *body = lines
    words = head.split()
    found = Record(number, words[0], "")
    match words:
        case ["statement", "ok"]:
            found.text = "\n".join(body)
        case ["statement" | "query", "error", *_]:
            found.error = head.split("error", 1)[1].strip()
            found.text = "\n".join(body)
        case ["query", types] | ["query", types, "rowsort"] if "----" in body:
            cut = body.index("----")
            found.types, found.is_sorted = types, len(words) == 3
            found.text, found.expected = "\n".join(body[:cut]), body[cut + 1 :]
        case _:
            raise Malformed(f"{name}:{number}: {head}")
    if not found.text:
        raise Malformed(f"{name}:{number}: no text follows")
    return found


def letter(kind: Any) -> str:
    """The letter of an Arrow type."""
    import pyarrow.types as is_

    if is_.is_dictionary(kind):
        return letter(kind.value_type)
    if is_.is_boolean(kind):
        return "B"
    if is_.is_integer(kind) or (is_.is_decimal(kind) and kind.scale == 0):
        return "I"
    if is_.is_floating(kind) or is_.is_decimal(kind):
        return "R"
    if is_.is_temporal(kind):
        return "D"
    if is_.is_map(kind):
        return "M"
    if is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind):
        return "L"
    return "S" if is_.is_struct(kind) else "T"


def number(value: float | Decimal) -> str:
    """Ten digits of a float and all of a decimal, without zeros at the end."""
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return {"nan": "NaN"}.get(str(value), str(value))
        if value and not 1e-6 <= abs(value) < 1e16:
            return format(value, ".10g")
        value = Decimal(format(value, ".10g"))
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def interval(value: Any) -> str:
    """Months, days and what is less, as far as there are any."""
    parts = {"months": value[0], "days": value[1], "seconds": number(value[2] / 1e9)}
    return " ".join(f"{n} {unit}" for unit, n in parts.items() if n not in (0, "0")) or "0"


def rendered(value: Any, kind: Any = None) -> str:
    """A value as it stands in a file."""
    import pyarrow.types as is_

    if value is None:
        return "NULL"
    if kind is not None and is_.is_map(kind):
        pairs = (f"{rendered(k)}: {rendered(v)}" for k, v in value)
        return "{" + ", ".join(pairs) + "}"
    match value:
        case bool():
            return str(value).lower()
        case float() | Decimal():
            return number(value)
        case bytes():
            return value.hex()
        case datetime.datetime():
            # A time zone is said by the type; what is compared is the moment.
            text = value.replace(tzinfo=None).isoformat(" ")
            return text.rstrip("0") if "." in text else text
        case datetime.timedelta():
            return f"{number(value.total_seconds())} seconds"
        case dict():
            return "{" + ", ".join(f"{k}: {rendered(v)}" for k, v in value.items()) + "}"
        case str():
            return value.replace("\n", "\\n").replace("\t", "\\t") or "(empty)"
        case tuple() if hasattr(value, "nanoseconds"):
            return interval(value)
        case list() | tuple():
            return "[" + ", ".join(map(rendered, value)) + "]"
    return str(value)


def lines_of(table: Any) -> list[str]:
    """The rows of an Arrow table, each a line."""
    columns = [
        [rendered(value, column.type) for value in column.to_pylist()] for column in table.columns
    ]
    return ["\t".join(row) for row in zip(*columns, strict=True)]


def letters_of(table: Any) -> str:
    """A letter for each column; `?` where every value is missing."""
    return "".join(
        "?" if column.null_count == len(column) else letter(column.type)
        for column in table.columns
    )


def failure(found: Record, table: Any) -> str:
    """What is wrong with the answer to a query; empty if it is right."""
    got, expected = lines_of(table), found.expected
    if found.is_sorted:
        got, expected = sorted(got), sorted(expected)
    if got != expected:
        return "\n".join([found.text, "  expected:", *expected, "  got:", *got])
    letters = letters_of(table)
    fits = len(letters) == len(found.types) and all(
        "?" in (ours, theirs) or ours == theirs
        for ours, theirs in zip(letters, found.types, strict=True)
    )
    return "" if fits else f"{found.text}\n  types are {letters}, not {found.types}"


def fails_as_it_should(found: Record, message: str) -> bool:
    return re.search(found.error, message) is not None
