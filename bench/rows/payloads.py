"""Real payloads: NumPy and pandas tasks of 5 to 20 ms on values of 1 to 8 MB."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from bench import tasks
from bench.row import Family, Outcome, Row, Setup


@dataclass(frozen=True)
class Kind:
    """The five functions of one kind of value."""

    name: str
    make: Callable[..., Any]
    work: Callable[..., Any]
    join: Callable[..., Any]
    smooth: Callable[..., Any]
    total: Callable[..., Any]


KINDS = (
    Kind(
        "numpy",
        tasks.array_make,
        tasks.array_work,
        tasks.array_join,
        tasks.array_smooth,
        tasks.array_total,
    ),
    Kind(
        "pandas",
        tasks.frame_make,
        tasks.frame_work,
        tasks.frame_join,
        tasks.frame_smooth,
        tasks.frame_total,
    ),
)

N_STEPS = 3
Call = Callable[..., Any]


def build_map(call: Call, kind: Kind, n: int) -> tuple[list[Any], int]:
    made = [call(kind.make, i) for i in range(n)]
    worked = [call(kind.work, value) for value in made]
    return [call(kind.total, value) for value in worked], 3 * n


def build_tree(call: Call, kind: Kind, n: int) -> tuple[list[Any], int]:
    level = [call(kind.make, i) for i in range(n)]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        rest = level[-1:] if len(level) % 2 else []
        level = [call(kind.join, a, b) for a, b in pairs] + rest
    return [call(kind.total, level[0])], 2 * n


def build_stencil(call: Call, kind: Kind, n: int) -> tuple[list[Any], int]:
    level = [call(kind.make, i) for i in range(n)]
    for _ in range(N_STEPS):
        level = [
            call(kind.smooth, level[i - 1], level[i], level[(i + 1) % n]) for i in range(n)
        ]
    return [call(kind.total, value) for value in level], (2 + N_STEPS) * n


SHAPES = {
    "map": (build_map, 32, frozenset({"submit", "references"})),
    "tree": (build_tree, 32, frozenset({"submit", "references"})),
    "stencil": (build_stencil, 16, frozenset({"submit", "references"})),
}


def row(kind: Kind, shape: str) -> Row:
    build, size, needs = SHAPES[shape]

    def cell(peer: Any, n: int) -> Generator[Outcome | None, None, None]:
        yield None
        futures, n_tasks = build(peer.submit, kind, n)
        values = peer.gather(futures)
        yield Outcome(values, n_tasks)

    def expected(n: int) -> list[float]:
        values, _ = build(lambda function, *args: function(*args), kind, n)
        return values

    goal = "not slower than `dask.threaded`, Frisky; 1.5 × Dask"
    title = f"{kind.name} {shape}, per task"
    name = f"{kind.name}-{shape}"
    return Row(name, title, cell, expected, {"": size}, goal=goal, needs=needs, quick=4)


ROWS = tuple(row(kind, shape) for kind in KINDS for shape in SHAPES)

PROCESSES = Family(
    "processes",
    ROWS,
    {
        "rasker": Setup(),
        "dask": Setup(),
        "dask-threaded": Setup(mode="delayed"),
        "frisky": Setup(),
        "ray": Setup(),
    },
)

THREADS = Family(
    "threads",
    ROWS,
    {
        "rasker": Setup(processes=False),
        "dask": Setup(processes=False),
        "dask-threaded": Setup(mode="delayed"),
        "frisky": Setup(processes=False),
    },
)
