"""Right answers, which are DuckDB's, and how one answer is compared with another."""

from __future__ import annotations

import datetime
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from bench.tables.data import made_once, tables
from bench.tables.texts import texts

Rows = list[tuple[Any, ...]]


def plain(value: Any) -> Any:
    """A value in which engines may be compared: numbers as floats, times as text."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, float | Decimal):
        number = float(value)
        return None if math.isnan(number) else number
    if isinstance(value, datetime.date | datetime.datetime | datetime.time):
        return value.isoformat().removesuffix("T00:00:00")
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return str(value)


def rows_of(table: Any) -> Rows:
    """The rows of an Arrow table in plain values."""
    columns = [[plain(value) for value in column.to_pylist()] for column in table.columns]
    return list(zip(*columns, strict=True))


def connect(files: Mapping[str, str], n_threads: int = 2) -> Any:
    """DuckDB with a view for each file."""
    import duckdb

    connection = duckdb.connect(config={"threads": n_threads})
    for name, path in files.items():
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM '{path}'")
    return connection


def table_of(result: Any) -> Any:
    """The Arrow table of a DuckDB result, however this version calls it."""
    return result.to_arrow_table()


def right_answers(files: Mapping[str, str], asked: Mapping[str, str]) -> dict[str, Any]:
    """DuckDB's answer to each text, as Arrow tables."""
    connection = connect(files)
    return {name: table_of(connection.sql(text)) for name, text in asked.items()}


def outermost(text: str, word: str, sign: str) -> tuple[str, list[str]]:
    """What follows the last `word` outside parentheses, and its parts between `sign`s."""
    depth, start = 0, -1
    for place, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0 and re.match(rf"\b{word}\b", text[place:], re.IGNORECASE):
            start = place
    if start < 0:
        return "", []
    rest = re.sub(r"^\w+\s+by\s+", "", text[start:], flags=re.IGNORECASE)
    rest = re.split(r"\blimit\b|;", rest, flags=re.IGNORECASE)[0]
    parts, depth = [""], 0
    for letter in rest:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == sign and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return rest, [part.strip() for part in parts]


def sort_columns(text: str, names: list[str]) -> list[int]:
    """The columns of the answer that the text's last ORDER BY names, up to the first it does not.

    Rows that are equal in these may come in any order.
    """
    found = []
    for part in outermost(text, "order", ",")[1]:
        word = re.sub(r"\s+(asc|desc|nulls|first|last)\b", "", part, flags=re.IGNORECASE)
        word = word.strip().strip('"').lower().rpartition(".")[2]
        if word.isdigit():
            found.append(int(word) - 1)
        elif word in names:
            found.append(names.index(word))
        else:
            break
    return found


def close(one: Any, other: Any) -> bool:
    """Equal, with floats equal to one part in a million, or to the fourth digit behind the point."""
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=2e-5)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(close, one, other))
    return bool(one == other)


def sortable(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Texts before numbers, and fractions coarse: two answers come into the same order."""

    def key(value: Any) -> tuple[Any, ...]:
        if value is None:
            return (0,)
        if isinstance(value, int | float):
            whole = float(value).is_integer()
            return (2, float(value) if whole else float(f"{value:.6g}"))
        return (1, str(value))

    # A sum may be an integer to one engine and a float to the other: both are numbers here.
    numbers = [isinstance(value, int | float) for value in row]
    texts = [key(value) for value, number in zip(row, numbers, strict=True) if not number]
    return (*texts, *(key(v) for v, number in zip(row, numbers, strict=True) if number))


def difference(answer: Rows, expected: Rows, keys: list[int]) -> str:
    """How two answers differ, in a line; empty if they do not."""
    if len(answer) != len(expected):
        return f"{len(answer)} rows where {len(expected)} are expected"
    for place, (ours, theirs) in enumerate(zip(answer, expected, strict=True)):
        for column in keys:
            if not close(ours[column], theirs[column]):
                return f"row {place} is {ours}, and {theirs} is expected there"
    pairs = zip(sorted(answer, key=sortable), sorted(expected, key=sortable), strict=True)
    for ours, theirs in pairs:
        if not close(list(ours), list(theirs)):
            return f"there is {ours} where {theirs} is expected"
    return ""


def wrong(table: Any, expected: Any, text: str) -> str:
    """How an Arrow table differs from the right answer to `text`; empty if it is right."""
    keys = sort_columns(text, [name.lower() for name in expected.column_names])
    return difference(rows_of(table), rows_of(expected), keys)


def checker(files: Mapping[str, str]) -> Callable[[str, Any], str]:
    """Asks DuckDB when it is asked: `check(text, table)` says what is wrong."""
    return partial(_check, connect(files))


def _check(connection: Any, text: str, table: Any) -> str:
    return wrong(table, table_of(connection.sql(text)), text)


def stored_answers(kind: str, scale: str) -> dict[str, Any]:
    """The right answers to all texts of a kind, asked once and kept beside the data."""
    import duckdb
    import pyarrow
    import pyarrow.ipc

    files, asked = tables(kind, scale), texts(kind)
    digest = hashlib.sha256("".join([duckdb.__version__, *asked.values()]).encode()).hexdigest()

    def make(folder: Path) -> None:
        for name, table in right_answers(files, asked).items():
            with pyarrow.ipc.new_file(folder / f"{name}.arrow", table.schema) as file:
                file.write_table(table)

    folder = made_once(f"{kind}-{scale}-answers-{digest[:12]}", make)
    answers = {}
    for name in asked:
        with pyarrow.memory_map(str(folder / f"{name}.arrow")) as source:
            answers[name] = pyarrow.ipc.open_file(source).read_all()
    return answers
