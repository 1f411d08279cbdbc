"""The inside of a peer's process: starts the peer, then runs cells when told to."""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from bench.peers import Peer, load
from bench.registry import FAMILIES
from bench.row import Outcome, Row


def main(arguments: list[str]) -> None:
    descriptor, name, family_name = arguments
    # What the peer starts must not hold the connection open.
    os.set_inheritable(int(descriptor), False)
    connection = Connection(int(descriptor))
    family = FAMILIES[family_name]
    try:
        peer, version = load(name, family.peers[name])
    except Exception as error:
        kind = "unavailable" if isinstance(error, ImportError) else "failed"
        text = str(error) if kind == "unavailable" else traceback.format_exc()
        connection.send((kind, text))
        return
    connection.send(("ready", version, sorted(peer.can)))
    rows = {row.name: row for row in family.rows}
    while (request := connection.recv()) is not None:
        row_name, size, n_repeats = request
        try:
            run(connection, peer, rows[row_name], size, n_repeats)
        except Exception:
            connection.send(("failed", traceback.format_exc()))
    peer.stop()
    connection.send(("stopped",))


def run(connection: Connection, peer: Peer, row: Row, size: int, n_repeats: int) -> None:
    """Prepare, wait for the word, run and time, report, clean up."""
    cell: Any = row.cell(peer, size)
    next(cell)
    gc.collect()
    connection.send(("prepared",))
    connection.recv()
    wall = 0.0
    outcomes: list[Outcome] = []
    for repeat in range(n_repeats):
        if repeat:
            finish(cell)
            cell = row.cell(peer, size)
            next(cell)
        started = time.perf_counter()
        outcome = next(cell)
        wall += time.perf_counter() - started
        if not isinstance(outcome, Outcome):
            raise TypeError(f'row "{row.name}" gave no outcome')
        outcomes.append(outcome)
    connection.send(("done", wall, outcomes))
    connection.recv()
    finish(cell)
    connection.send(("clean",))


def finish(cell: Any) -> None:
    for _ in cell:
        raise RuntimeError("a cell yields twice: when prepared, and with its outcome")


if __name__ == "__main__":
    main(sys.argv[1:])
