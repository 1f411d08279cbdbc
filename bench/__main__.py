"""`python -m bench`: choose rows and peers, measure, print, save."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from bench import machine, report
from bench.harness import Options, run_family
from bench.peers import ENGINES, PEERS
from bench.registry import FAMILIES
from bench.row import Family, Row

HERE = Path(__file__).resolve().parent
NAMES = list({**PEERS, **ENGINES})


def select(names: list[str]) -> list[tuple[Family, list[Row]]]:
    """Families and rows by name: "map" is a whole family, "map/first" one row of it."""
    chosen = []
    known = {f"{f.name}/{r.name}" for f in FAMILIES.values() for r in f.rows} | set(FAMILIES)
    for name in names:
        if name not in known:
            sys.exit(f'row "{name}" not found; there are: {", ".join(sorted(known))}')
    for family in FAMILIES.values():
        rows = [
            row
            for row in family.rows
            if not names or family.name in names or f"{family.name}/{row.name}" in names
        ]
        if rows:
            chosen.append((family, rows))
    return chosen


def comma(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def command(options: argparse.Namespace, n_rounds: int) -> str:
    """The command that measures the same again, wherever it is saved."""
    words = ["python -m bench"]
    if options.rows:
        words.append(f"--rows {','.join(options.rows)}")
    if options.peers != NAMES:
        words.append(f"--peers {','.join(options.peers)}")
    if options.subject != "rasker":
        words.append(f"--subject {options.subject}")
    words.append(f"--rounds {n_rounds}")
    if options.quick:
        words.append("--quick")
    return " ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", type=comma, default=[], help="families or family/row")
    parser.add_argument("--peers", type=comma, default=NAMES, help=", ".join(NAMES))
    parser.add_argument("--subject", default="rasker", help="whom the ratios are against")
    parser.add_argument("--rounds", type=int, default=0, help="5, or 3 with --quick")
    parser.add_argument("--quick", action="store_true", help="smaller; nothing is saved")
    parser.add_argument("--output", type=Path, help="the folder of results.json and README.md")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    options = parser.parse_args()
    # Being ended goes through the same door as an error: the peers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    chosen = select(options.rows)
    if options.list:
        for family, rows in chosen:
            for row in rows:
                print(f"{family.name}/{row.name:20} {row.title}; {', '.join(family.peers)}")
        return
    for name in options.peers:
        if name not in NAMES:
            sys.exit(f'peer "{name}" not found; there are: {", ".join(NAMES)}')
    n_rounds = options.rounds or (3 if options.quick else 5)
    settings = Options(options.subject, options.peers, n_rounds, options.quick)
    header = {**machine.describe(), "command": command(options, n_rounds)}
    print("; ".join(header.values()), flush=True)
    order = [f"{f.name}/{r.name}" for f in FAMILIES.values() for r in f.rows]
    folder = options.output or (None if options.quick else HERE)
    records = {}
    for family, rows in chosen:
        for result in run_family(family, rows, settings, lambda text: print(text, flush=True)):
            if result.values:
                records[f"{family.name}/{result.row.name}"] = report.record(result, header)
        if folder is not None and records:
            report.save(records, folder, order)
    print()
    print(report.table(records))


if __name__ == "__main__":
    main()
