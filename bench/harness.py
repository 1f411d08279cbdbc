"""The protocol of measuring on a small and noisy machine.

- Peers are measured in the same rounds, in an order shuffled anew for each round, and compared
  round by round: the score is the median of the rounds' ratios with its quartiles.
- The subject runs twice in every round. The spread between the two (A/A) is what no
  difference may hide in.
- Wall time and the CPU time of the whole process tree are both kept. Wall ratios use the rounds in which
  everyone else used little of the machine, if there are enough of them.
- An answer is compared with plain Python's before its time is kept.
- A cell that is short is repeated until it is long enough for the clock of CPU times.
"""

from __future__ import annotations

import math
import os
import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.row import Family, Row
from bench.seat import PeerError, Seat

AGAIN = "again"
QUIET_SHARE = 0.35
SHORTEST_CELL_S = 0.5
MOST_REPEATS = 50

Say = Callable[[str], None]


@dataclass
class Options:
    subject: str
    peers: list[str]
    n_rounds: int
    quick: bool
    seed: int = 0


@dataclass
class Sample:
    """One peer's cell in one round: costs by name, and the others' share of the machine."""

    costs: dict[str, float]
    others: float


@dataclass
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        ordered = sorted(values)
        quarter = len(ordered) // 4
        return cls(
            statistics.median(ordered), ordered[quarter], ordered[-1 - quarter], len(ordered)
        )


@dataclass
class Result:
    """What came of one row: per cost, each peer's value and how many times the subject's it is."""

    row: Row
    subject: str
    sizes: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[str, Spread]] = field(default_factory=dict)
    ratios: dict[str, dict[str, Spread]] = field(default_factory=dict)
    n_rounds: int = 0
    n_quiet: int = 0


def agrees(answer: Any, expected: Any) -> bool:
    """Equal, with floats equal to one part in a million."""
    if isinstance(expected, float):
        return isinstance(answer, int | float) and math.isclose(
            answer, expected, rel_tol=1e-6, abs_tol=1e-12
        )
    if isinstance(expected, list | tuple):
        return len(answer) == len(expected) and all(map(agrees, answer, expected))
    return bool(answer == expected)


def difference(answer: Any, expected: Any) -> str:
    """The first place at which two answers differ, however deep; empty if they agree."""
    if agrees(answer, expected):
        return ""
    if isinstance(answer, list | tuple) and isinstance(expected, list | tuple):
        if len(answer) != len(expected):
            return f"it has {len(answer)} parts, not {len(expected)}"
        for place, (ours, right) in enumerate(zip(answer, expected, strict=True)):
            if not agrees(ours, right):
                return f"[{place}]: {difference(ours, right)}"
    return f"{answer!r:.200} is not {expected!r:.200}"


def in_a_line(text: str) -> str:
    """What failed, without the frames and the log that are printed when it happens."""
    lines = text.strip().splitlines() or [""]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def run_family(family: Family, rows: list[Row], options: Options, say: Say) -> list[Result]:
    """Start the family's peers, run its rows on them, stop them."""
    seats: dict[str, Seat] = {}
    results = []
    try:
        for name in options.peers:
            if name not in family.peers:
                continue
            try:
                seats[name] = Seat(name, family.name)
            except PeerError as error:
                say(f"{family.name}: {name} is skipped: {error}")
        for row in rows:
            say(f"{family.name}/{row.name}")
            results.append(run_row(row, seats, options, say))
    finally:
        for seat in seats.values():
            seat.stop()
    return results


def run_row(row: Row, seats: Mapping[str, Seat], options: Options, say: Say) -> Result:
    able = {
        name: seat
        for name, seat in seats.items()
        if row.needs <= seat.can and name not in row.skip and seat.alive()
    }
    subject = options.subject if options.subject in able else next(iter(able), "")
    result = Result(row, subject)
    expected: dict[int, Any] = {}
    n_repeats: dict[str, int] = {}

    def measure(name: str, count: int) -> Sample | None:
        size = row.size(name, options.quick)
        if size not in expected:
            expected[size] = row.expected(size)
        try:
            sample = run_cell(row, able[name], size, count, expected[size])
        except PeerError as error:
            able.pop(name)
            result.failures[name] = in_a_line(str(error))
            say(f"  {name} failed: {error}")
            return None
        result.sizes[name] = size
        result.versions[name] = seats[name].version
        return sample

    for name in list(able):
        warm = measure(name, 1)
        if warm is not None:
            wanted = math.ceil(SHORTEST_CELL_S / max(warm.costs["cell"], 1e-9))
            n_repeats[name] = min(MOST_REPEATS, wanted) if row.repeats else 1

    chance = random.Random(options.seed)
    rounds: list[dict[str, Sample]] = []
    for _ in range(options.n_rounds):
        order = [*able, AGAIN] if subject in able else list(able)
        chance.shuffle(order)
        samples = {}
        for label in order:
            name = subject if label == AGAIN else label
            if name in able and (sample := measure(name, n_repeats[name])) is not None:
                samples[label] = sample
        rounds.append(samples)
    summarize(result, rounds)
    for name in able:
        wall = result.values[row.headline][name]
        say(f"  {name:14} {row.headline} {wall.median:.4g} [{wall.low:.4g} … {wall.high:.4g}]")
    return result


def run_cell(row: Row, seat: Seat, size: int, count: int, expected: Any) -> Sample:
    wall, usage, outcomes = seat.measure(row, size, count)
    for outcome in outcomes:
        if text := (row.difference or difference)(outcome.answer, expected):
            raise PeerError(f"its answer is wrong, so it has no time: {text}")
    n_tasks = sum(outcome.n_tasks for outcome in outcomes) if row.per_task else count
    costs = {
        name: statistics.fmean(outcome.costs[name] for outcome in outcomes)
        for name in outcomes[0].costs
    }
    # A row may time itself where only a part of its run is meant.
    costs.setdefault("wall", wall / n_tasks)
    costs["cpu"] = usage.cpu / n_tasks
    costs["cell"] = wall
    machine = max(wall, 1e-9) * (os.cpu_count() or 1)
    return Sample(costs, usage.other / machine)


def summarize(result: Result, rounds: list[dict[str, Sample]]) -> None:
    quiet = [r for r in rounds if all(s.others <= QUIET_SHARE for s in r.values())]
    result.n_rounds, result.n_quiet = len(rounds), len(quiet)
    # With too few quiet rounds all are used, and the table says how many were quiet.
    chosen = quiet if len(quiet) >= max(3, len(rounds) // 2) else rounds
    names = {cost for r in rounds for s in r.values() for cost in s.costs} - {"cell"}
    for cost in sorted(names):
        used = rounds if cost == "cpu" else chosen
        values: dict[str, list[float]] = {}
        ratios: dict[str, list[float]] = {}
        for samples in used:
            ours = samples.get(result.subject)
            for label, sample in samples.items():
                if cost not in sample.costs:
                    continue
                values.setdefault(label, []).append(sample.costs[cost])
                if ours is not None and label != result.subject and ours.costs.get(cost):
                    ratio = sample.costs[cost] / ours.costs[cost]
                    ratios.setdefault(label, []).append(ratio)
        result.values[cost] = {label: Spread.of(v) for label, v in values.items()}
        result.ratios[cost] = {label: Spread.of(v) for label, v in ratios.items()}
