"""Clients that submit, cancel, release and submit the same keys again for other functions, while
workers retire and join: ``python -m tests.chaos.storm --seconds 60``."""

from __future__ import annotations

import argparse
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.chaos.cluster import Programs

N_CLIENTS = 4
N_KEYS = 24
SETTLE = 30.0


def quick(name: str, version: int) -> tuple[str, str, int]:
    return ("quick", name, version)


def slow(name: str, version: int) -> tuple[str, str, int]:
    time.sleep(0.02)
    return ("slow", name, version)


def large(name: str, version: int) -> tuple[str, str, int, bytes]:
    return ("large", name, version, bytes(200_000))


def over(value: tuple[Any, ...], name: str, version: int) -> tuple[Any, ...]:
    return ("over", name, version, value[:3])


class Caller:
    """One client, with keys of its own and what it submitted last under each."""

    def __init__(self, client: Any, number: int, seed: int) -> None:
        self.client = client
        self.number = number
        self.random = random.Random(seed)
        self.held: dict[str, tuple[Any, tuple[Any, ...]]] = {}
        self.n_submits = self.n_results = 0
        self.wrong: list[str] = []

    def submit(self) -> None:
        name = f"key-{self.number}-{self.random.randrange(N_KEYS)}"
        self.let_go(name)
        self.n_submits += 1
        version = self.n_submits
        kind = self.random.choice([quick, quick, slow, large, over])
        reads = [held for key, held in self.held.items() if key != name]
        if kind is over and reads:
            future, value = self.random.choice(reads)
            expected: tuple[Any, ...] = ("over", name, version, value[:3])
            new = self.client.submit(over, future, name, version, key=name)
        else:
            kind = quick if kind is over else kind
            expected = (kind.__name__, name, version)
            new = self.client.submit(kind, name, version, key=name)
        self.held[name] = (new, expected)

    def let_go(self, name: str) -> None:
        """Cancels or releases what has the key, with all that reads it."""
        held = self.held.pop(name, None)
        if held is None:
            return
        if self.random.random() < 0.5:
            # What reads it is cancelled with it.
            for other in [n for n, (_, value) in self.held.items() if value[-1] == held[1][:3]]:
                self.let_go(other)
            held[0].cancel()

    def look(self) -> None:
        name, (future, expected) = self.random.choice(list(self.held.items()))
        try:
            seen = future.result(timeout=60)
        except Exception as error:
            # A reader of something that was cancelled is cancelled with it.
            if expected[0] != "over":
                self.wrong.append(f"{name} {expected}: {error!r}")
            self.held.pop(name, None)
            return
        self.n_results += 1
        if tuple(seen[: len(expected)]) != expected:
            self.wrong.append(f"{name}: {seen[:4]} instead of {expected}")

    def storm(self, until: float) -> None:
        while time.monotonic() < until and not self.wrong:
            for _ in range(self.random.randrange(1, 6)):
                self.submit()
            if self.held and self.random.random() < 0.6:
                self.look()
        self.held.clear()


def usage(pid: int) -> tuple[int, int]:
    """Memory in bytes and descriptors of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd"))


def is_empty(client: Any) -> bool:
    return not client.who_has() and not any(client.processing().values())


def settle(client: Any) -> None:
    until = time.monotonic() + SETTLE
    while not is_empty(client):
        if time.monotonic() > until:
            raise AssertionError(f"left over: {client.who_has()}, {client.processing()}")
        time.sleep(0.1)


def one_round(programs: Programs, clients: list[Any], seconds: float, seed: int) -> list[Caller]:
    """Storms for so long; one worker retires and another joins every two seconds."""
    callers = [Caller(client, n, seed * 10 + n) for n, client in enumerate(clients)]
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=caller.storm, args=(until,)) for caller in callers]
    for thread in threads:
        thread.start()
    keeper = clients[0]
    while time.monotonic() < until:
        time.sleep(min(2.0, max(0.0, until - time.monotonic())))
        if until - time.monotonic() > 3:
            old = sorted(keeper.scheduler_info()["workers"])[0]
            programs.add_worker()
            keeper.wait_for_workers(programs.n_workers + 1, timeout=30)
            keeper.retire_workers([old])
    for thread in threads:
        thread.join(90)
        assert not thread.is_alive(), "a client hangs"
    settle(keeper)
    return callers


def storm(seconds: float, seed: int = 1) -> dict[str, Any]:
    programs = Programs("rasker", n_workers=2)
    try:
        clients = [programs.connect() for _ in range(N_CLIENTS)]
        # What the first storm leaves behind is what is always there from then on.
        callers = one_round(programs, clients, min(5.0, seconds), seed)
        before = usage(programs.scheduler.pid)
        callers += one_round(programs, clients, seconds, seed + 1)
        after = usage(programs.scheduler.pid)
        for client in clients:
            client.close()
    finally:
        programs.end()
    wrong = [text for caller in callers for text in caller.wrong]
    assert not wrong, wrong
    return {
        "seconds": seconds,
        "submits": sum(caller.n_submits for caller in callers),
        "results": sum(caller.n_results for caller in callers),
        "wrong": 0,
        "scheduler_mib": [round(before[0] / 2**20, 1), round(after[0] / 2**20, 1)],
        "scheduler_descriptors": [before[1], after[1]],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.storm", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(storm(args.seconds, args.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
