"""Jobs with an answer that is known beforehand."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WIDTH = 40
DEPTH = 8


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def mix(label: int, *inputs: int) -> int:
    """A number that depends on everything before it; takes 12 ms."""
    spin(0.012)
    value = label
    for i, x in enumerate(inputs):
        value = (value * 1_000_003 + x * (i + 1) + 12345) % (2**61 - 1)
    return value


def graph(rng: random.Random) -> list[list[tuple[int, list[int]]]]:
    """Layers of (label, positions read in the layer before)."""
    layers: list[list[tuple[int, list[int]]]] = []
    for _ in range(DEPTH):
        n_before = len(layers[-1]) if layers else 0
        n_reads = min(3, n_before)
        layers.append(
            [
                (rng.randrange(10**9), rng.sample(range(n_before), n_reads))
                for _ in range(WIDTH)
            ]
        )
    return layers


def run_graph(submit: Callable[..., Any], seed: int) -> list[Any]:
    before: list[Any] = []
    for layer in graph(random.Random(seed)):
        before = [submit(mix, label, *(before[i] for i in reads)) for label, reads in layer]
    return before


def make_array(i: int, n: int) -> Any:
    import numpy as np

    spin(0.012)
    return np.arange(n, dtype="int64") * (i + 1)


def join_arrays(a: Any, b: Any) -> Any:
    spin(0.012)
    return a * 3 + b


def total(a: Any) -> int:
    return int(a.sum() % (2**61 - 1))


def run_arrays(submit: Callable[..., Any], seed: int) -> list[Any]:
    """A tree of arrays of 2 MB, which go from worker to worker."""
    n = 250_000 + seed % 1000
    level = [submit(make_array, i, n) for i in range(128)]
    while len(level) > 1:
        level = [submit(join_arrays, a, b) for a, b in zip(level[::2], level[1::2], strict=True)]
    return [submit(total, level[0])]


@dataclass(frozen=True)
class Job:
    name: str
    run: Callable[[Callable[..., Any], int], list[Any]]

    def expected(self, seed: int) -> list[Any]:
        global spin
        real, spin = spin, lambda seconds: None
        try:
            return self.run(lambda function, *args: function(*args), seed)
        finally:
            spin = real


JOBS = (Job("graph", run_graph), Job("arrays", run_arrays))
