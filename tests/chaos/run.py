"""One run: a job, faults at moments that the seed decides, and the check of the answer."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import Any

from tests.chaos.cluster import Programs
from tests.chaos.faults import FAULTS
from tests.chaos.jobs import Job


@dataclass
class Outcome:
    seed: int
    job: str
    seconds: float
    n_faults: int
    verdict: str

    @property
    def is_right(self) -> bool:
        return self.verdict == "right"


def play(job: Job, seed: int, client: Any, timeout: float) -> str:
    """Run a job once; 'right', or what is wrong."""

    def submit(function: Any, *args: Any) -> Any:
        return client.submit(function, *args, pure=False)

    try:
        futures = job.run(submit, seed)
        until = time.monotonic() + timeout
        values = [future.result(timeout=max(0.1, until - time.monotonic())) for future in futures]
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return "right" if values == job.expected(seed) else f"wrong: {values[:3]}"


def cause_faults(
    programs: Programs, rng: random.Random, kinds: list[str], n: int, pause: float, done: Any
) -> list[str]:
    """Cause `n` faults, a pause apart; their names."""
    caused: list[str] = []
    while len(caused) < n and not done.wait(pause * rng.uniform(0.5, 1.5)):
        name = rng.choice(kinds)
        if FAULTS[name](programs, rng):
            caused.append(name)
        while programs.pending:
            done.wait(rng.uniform(0.1, 1.0))
            programs.pending.pop()()
    return caused


def run(
    library: str,
    job: Job,
    seed: int,
    kinds: list[str],
    n_faults: int = 5,
    pause: float = 0.25,
    timeout: float = 90.0,
) -> Outcome:
    """Run one job on a cluster of its own, with or without faults."""
    rng = random.Random(seed)
    programs = Programs(library, n_workers=3)
    caused: list[str] = []
    done = threading.Event()

    def cause() -> None:
        caused.extend(cause_faults(programs, rng, kinds, n_faults, pause, done))

    try:
        with programs.connect() as client:
            thread = threading.Thread(target=cause)
            begun = time.perf_counter()
            thread.start()
            verdict = play(job, seed, client, timeout)
            seconds = time.perf_counter() - begun
            done.set()
            thread.join()
        if verdict != "right":
            print(programs.said())
    finally:
        done.set()
        programs.end()
    return Outcome(seed, job.name, seconds, len(caused), verdict)
