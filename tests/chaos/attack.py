"""Peers without the token beside a job that runs: ``python -m tests.chaos.attack --seconds 60``."""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

from tests.chaos.cluster import Programs
from tests.chaos.storm import usage

N_IDLE = 500
# Of each kind, per second: enough to be a nuisance, not so many that the attack itself takes the
# processor that the job is measured on.
PER_SECOND = 20


def increment(i: int) -> int:
    return i + 1


def attack(host: str, port: int, seconds: float) -> None:
    """Opens idle connections, and others that claim huge lengths or send noise; prints how long
    the longest was left open."""
    noise = random.Random(1)
    opened: dict[socket.socket, float] = {}
    longest, n_closed = 0.0, 0

    def connect(first: bytes) -> None:
        try:
            peer = socket.create_connection((host, port), timeout=5)
            peer.setblocking(False)
            opened[peer] = time.monotonic()
            if first:
                peer.send(first)
        except OSError:
            pass

    for _ in range(N_IDLE):
        connect(b"")
    began = time.monotonic()
    n_rounds = 0
    while opened or time.monotonic() - began < seconds:
        now = time.monotonic()
        if now - began < seconds and now - began > n_rounds / PER_SECOND:
            n_rounds += 1
            connect(b"\xff" * 8 + bytes(64))
            connect((1 << 40).to_bytes(8, "little") + bytes(4096))
            connect(noise.randbytes(4096))
            while len(opened) < N_IDLE:
                connect(b"")
        if now - began > seconds + 30:
            longest = max(now - at for at in opened.values())
            break
        ready, _, _ = select.select(list(opened)[:1000], [], [], 0.02)
        for peer in ready:
            try:
                more = peer.recv(65536)
            except OSError:
                more = b""
            if not more:
                longest = max(longest, now - opened.pop(peer))
                n_closed += 1
                peer.close()
    print(json.dumps({"closed": n_closed, "longest": longest, "left": len(opened)}))


def job(client: Any) -> float:
    """One turn of the job; its time."""
    started = time.perf_counter()
    futures = client.map(increment, range(20_000), pure=False)
    total = client.submit(sum, futures, pure=False).result(timeout=60)
    assert total == 20_000 * 20_001 // 2
    return time.perf_counter() - started


def turns(client: Any, until: Any) -> list[float]:
    times = []
    while not until():
        times.append(job(client))
    return times


def measure(seconds: float) -> dict[str, Any]:
    programs = Programs("rasker", n_workers=1)
    try:
        client = programs.connect()
        with open(programs.file, encoding="utf-8") as stream:
            address = json.load(stream)["address"]
        host, _, port = address.rpartition("://")[2].rpartition(":")
        for _ in range(10):
            job(client)
        alone = time.monotonic() + seconds / 2
        quiet = turns(client, lambda: time.monotonic() > alone)
        before, _ = usage(programs.scheduler.pid)
        command = [sys.executable, "-m", "tests.chaos.attack", "--attack", f"{host}:{port}"]
        attacker = subprocess.Popen(
            [*command, "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True
        )
        most = before
        attacked: list[float] = []
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            attacked.append(job(client))
            most = max(most, usage(programs.scheduler.pid)[0])
        said, _ = attacker.communicate(timeout=60)
        alone = time.monotonic() + seconds / 2
        quiet += turns(client, lambda: time.monotonic() > alone)
        client.close()
    finally:
        programs.end()
    found = json.loads(said)
    return {
        "seconds": seconds,
        "connections_closed": found["closed"],
        "longest_open_s": round(found["longest"], 2),
        "scheduler_grew_mib": round((most - before) / 2**20, 1),
        "job_slower": round(statistics.median(attacked) / statistics.median(quiet) - 1, 3),
        "turns": [len(quiet), len(attacked)],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.attack", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.attack:
        os.nice(5)
        host, _, port = args.attack.rpartition(":")
        attack(host, int(port), args.seconds)
        return 0
    result = measure(args.seconds)
    print(result)
    is_good = result["longest_open_s"] <= 10.5 and result["scheduler_grew_mib"] <= 16
    return 0 if is_good and result["job_slower"] <= 0.1 else 1


if __name__ == "__main__":
    sys.exit(main())
