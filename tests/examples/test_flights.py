"""The demo's tasks as plain functions: pieces lose no flight, whatever their borders."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import flights

HEADER = "year,carrier,dest,hour,dep_delay,arr_delay\n"
ROWS = [f"2013,{'AA' if i % 3 else 'UA'},IAH,{5 + i % 2},{i},{i - 3}\n" for i in range(50)]


@pytest.mark.parametrize("length", [41, 64, 100, 1000, 10_000])
def test_pieces_of_any_length_hold_every_flight_once(tmp_path: Path, length: int) -> None:
    path = tmp_path / "flights.csv"
    path.write_text(HEADER + "".join(ROWS))
    starts = range(0, path.stat().st_size, length)
    found = [row for start in starts for row in flights.parse(start, str(path), length)]
    assert found == [row.strip().split(",")[1:] for row in ROWS]


def test_a_canceled_flight_counts_without_a_delay() -> None:
    raw = [["AA", "IAH", "5", "NA", "NA"], ["AA", "BQN", "5", "2", "20"]]
    joined = flights.join(raw, {"AA": "American"}, {"IAH": "Houston"})
    assert joined[0] == ("American", "Houston", 5, None, None)
    assert joined[1][1] == "BQN"  # an airport without a name keeps its code
    assert flights.delays(joined, (0,)) == {("American",): [2, 1, 1, 20.0]}


def test_merging_reductions_changes_neither_of_them() -> None:
    a, b = {("x",): [1, 1, 0, 2.0]}, {("x",): [2, 1, 1, 30.0], ("y",): [1, 0, 0, 0.0]}
    merged = flights.merge(a, b)
    assert merged == {("x",): [3, 2, 1, 32.0], ("y",): [1, 0, 0, 0.0]}
    assert a == {("x",): [1, 1, 0, 2.0]}
