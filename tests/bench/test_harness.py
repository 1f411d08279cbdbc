"""The measuring protocol, on peers that are made of numbers."""

from __future__ import annotations

from typing import Any

import pytest

from bench import harness, report
from bench.harness import Options, Spread, agrees, run_row
from bench.machine import Usage
from bench.registry import FAMILIES
from bench.row import Outcome, Row
from bench.seat import PeerError, Seat


HEADER = {"machine": "m", "system": "s", "python": "p", "command": "c"}


class FixedSeat:
    """Takes the same wall time for every task, and gives the same answer."""

    version = "1"
    can = frozenset({"map"})

    def __init__(self, wall: float, answer: Any = 7, others: float = 0.0) -> None:
        self.wall = wall
        self.answer = answer
        self.others = others
        self.n_runs = 0

    def alive(self) -> bool:
        return True

    def measure(self, row: Row, size: int, count: int) -> tuple[float, Usage, list[Outcome]]:
        self.n_runs += count
        wall = self.wall * size * count
        usage = Usage(cpu=2 * wall, other=self.others)
        return wall, usage, [Outcome(self.answer, size)] * count


def row(**changes: Any) -> Row:
    fields: dict[str, Any] = {
        "name": "row",
        "title": "a row",
        "cell": lambda peer, n: iter(()),
        "expected": lambda n: 7,
        "sizes": {"": 100, "slow": 10},
        "needs": frozenset({"map"}),
    }
    return Row(**{**fields, **changes})


def measured(seats: dict[str, Any], **changes: Any) -> harness.Result:
    options = Options("ours", list(seats), n_rounds=5, quick=False)
    return run_row(row(**changes), seats, options, say=lambda text: None)


def test_costs_are_per_task_and_ratios_are_against_the_subject() -> None:
    result = measured({"ours": FixedSeat(0.001), "slow": FixedSeat(0.004)})
    assert result.values["wall"]["slow"].median == pytest.approx(0.004)
    assert result.ratios["wall"]["slow"].median == pytest.approx(4.0)
    assert result.ratios["cpu"]["slow"].median == pytest.approx(4.0)
    assert result.sizes == {"ours": 100, "slow": 10}


def test_the_subject_runs_twice_in_every_round() -> None:
    ours, other = FixedSeat(0.001), FixedSeat(0.001)
    result = measured({"ours": ours, "other": other})
    assert (ours.n_runs, other.n_runs) == (11, 6)  # one of each to warm up
    assert result.ratios["wall"][harness.AGAIN].median == pytest.approx(1.0)


def test_a_wrong_answer_has_no_time() -> None:
    result = measured({"ours": FixedSeat(0.001), "other": FixedSeat(0.001, answer=8)})
    assert "other" not in result.values["wall"]
    assert result.failures["other"].startswith("its answer is wrong")


def test_a_peer_that_lacks_an_ability_is_left_out() -> None:
    seats = {"ours": FixedSeat(0.001)}
    assert measured(seats, needs=frozenset({"bytes_sent"})).values == {}


def test_short_cells_are_repeated_where_the_row_allows_it() -> None:
    ours = FixedSeat(0.001)
    measured({"ours": ours}, repeats=True)
    assert ours.n_runs == 1 + 5 * 2 * 5  # cells of 0.1 s; the shortest is 0.5 s


def test_noisy_rounds_are_counted() -> None:
    result = measured({"ours": FixedSeat(0.001, others=100.0)})
    assert (result.n_quiet, result.n_rounds) == (0, 5)
    assert result.values["wall"]["ours"].n == 5  # too few are quiet, so all are used


def test_answers_agree_to_one_part_in_a_million() -> None:
    assert agrees([1.0, (2, "a")], [1.0 + 1e-9, (2, "a")])
    assert not agrees(1.001, 1.0)
    assert not agrees([1.0], [1.0, 2.0])


def test_a_difference_is_named_by_its_place() -> None:
    assert harness.difference([1, [2, 3.0]], [1, [2, 3.0]]) == ""
    assert harness.difference([1, [2, 4.0]], [1, [2, 3.0]]) == "[1]: [1]: 4.0 is not 3.0"
    assert "2 parts, not 1" in harness.difference([1, 2], [1])


def test_a_row_may_say_itself_how_answers_differ() -> None:
    seats = {"ours": FixedSeat(0.001), "other": FixedSeat(0.001, answer=8)}
    odd = measured(seats, difference=lambda answer, right: "it is even" * (answer % 2 == 0))
    assert odd.failures == {"other": odd.failures["other"]}
    assert "it is even" in odd.failures["other"]


def test_a_spread_is_a_median_with_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(3.0, 2.0, 4.0, 5)


def test_a_failure_is_kept_in_one_line() -> None:
    assert harness.in_a_line("Traceback (…):\n  frame\nValueError: x\n") == "ValueError: x"
    assert harness.in_a_line("its process ended\nlog") == "its process ended"


def test_quantities_have_the_unit_that_suits_them() -> None:
    assert report.quantity(0.00123, "s") == "1.23 ms"
    assert report.quantity(8_000_000, "B") == "8 MB"
    assert report.quantity(1.05, "×") == "1.05 ×"


def test_saving_some_rows_keeps_the_others(tmp_path: Any) -> None:
    first = report.record(measured({"ours": FixedSeat(0.001)}), {"date": "1", **HEADER})
    report.save({"a/row": first}, tmp_path, ["a/row", "b/row"])
    report.save({"b/row": {**first, "date": "2"}}, tmp_path, ["a/row", "b/row"])
    page = (tmp_path / "README.md").read_text()
    assert page.index("### a") < page.index("### b")
    assert page.count(report.BEGIN) == 1


@pytest.mark.parametrize("name", list(FAMILIES))
def test_rows_are_named_once_and_headed_by_a_known_cost(name: str) -> None:
    rows = FAMILIES[name].rows
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.headline in report.COSTS for row in rows)


def test_a_seat_says_why_a_peer_cannot_be_had() -> None:
    with pytest.raises(PeerError, match="KeyError: 'nobody'"):
        Seat("nobody", "latency")


def test_a_seat_runs_a_row_in_a_process_of_its_own() -> None:
    seat = Seat("futures", "latency")
    try:
        latency = FAMILIES["latency"].rows[0]
        wall, usage, outcomes = seat.measure(latency, 20, 1)
        assert outcomes[0].answer == 20
        assert 0 < outcomes[0].costs["p50"] <= outcomes[0].costs["p99"] < wall
        assert usage.cpu >= 0
    finally:
        seat.stop()
    assert not seat.alive()
