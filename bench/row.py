"""What a benchmark is: a row of the table, grouped in families that share a cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Setup:
    """How a peer is started for a family.

    `mode` is "cluster" (two single-threaded executor processes, or one process with two
    threads where `processes` is false), "workers" (separate worker processes, joined over
    the network), "delayed" (the local scheduler, without a cluster), "tables" (an engine
    that answers questions to files) or "none".
    """

    mode: str = "cluster"
    processes: bool = True
    shared_memory: bool = True


@dataclass
class Outcome:
    """What one run of a row gives: an answer to be checked, and its costs.

    Every cost is better when it is lower. The harness adds "wall" (seconds for the timed part,
    divided by `n_tasks`) and "cpu" (the same of the whole process tree).
    """

    answer: Any
    n_tasks: int = 1
    costs: dict[str, float] = field(default_factory=dict)


Cell = Callable[[Any, int], Generator[Outcome | None, None, None]]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `cell` is a generator over a peer and a size: up to its first yield it prepares, up to
    its second (which gives the `Outcome`) it is timed, and after that it cleans up.
    `expected` gives the answer of plain Python for a size. `sizes` holds the size for each peer
    that needs its own, since costs are per task; `""` is everyone else's. A peer in `skip` would
    need minutes for one cell. `difference` says how an answer differs from the expected one,
    where that is more than inequality.
    """

    name: str
    title: str
    cell: Cell
    expected: Callable[[int], Any]
    sizes: Mapping[str, int]
    goal: str = ""
    needs: frozenset[str] = frozenset()
    skip: frozenset[str] = frozenset()
    per_task: bool = True
    repeats: bool = False
    quick: int = 10
    headline: str = "wall"
    limit_s: float = 300.0
    difference: Callable[[Any, Any], str] | None = None

    def size(self, peer: str, quick: bool) -> int:
        size = self.sizes.get(peer, self.sizes[""])
        return max(1, size // self.quick) if quick else size


@dataclass(frozen=True)
class Family:
    """Rows that run on the same started peers; `peers` says which take part, and how."""

    name: str
    rows: tuple[Row, ...]
    peers: Mapping[str, Setup]
