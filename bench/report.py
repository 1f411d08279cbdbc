"""Results as JSON, and as a table between the markers of `bench/README.md`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.harness import AGAIN, Result

BEGIN, END = "<!-- results -->", "<!-- /results -->"

# cost: (what it is called, its unit)
COSTS = {
    "wall": ("wall", "s"),
    "cpu": ("CPU", "s"),
    "growth": ("growth", "×"),
    "schedule": ("schedule", "×"),
    "p50": ("p50", "s"),
    "p99": ("p99", "s"),
    "bytes": ("bytes", "B"),
    "build": ("build", "s"),
    "peak": ("peak memory", "B"),
    "wrong": ("wrong answers", ""),
    **{f"q{number:02d}": (f"Q{number}", "s") for number in range(1, 23)},
}


def record(result: Result, header: dict[str, str]) -> dict[str, Any]:
    """A row's result in plain values."""
    return {
        "title": result.row.title,
        "goal": result.row.goal,
        "headline": result.row.headline,
        "subject": result.subject,
        "sizes": result.sizes,
        "versions": result.versions,
        "failures": result.failures,
        "rounds": result.n_rounds,
        "quiet_rounds": result.n_quiet,
        "values": {c: {p: asdict(s) for p, s in v.items()} for c, v in result.values.items()},
        "ratios": {c: {p: asdict(s) for p, s in v.items()} for c, v in result.ratios.items()},
        **header,
    }


def save(records: dict[str, Any], folder: Path, order: list[str]) -> None:
    """Put these rows in place of their earlier results, and draw the table anew."""
    file = folder / "results.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    known.update(records)
    known = {name: known[name] for name in order if name in known}
    file.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    page = folder / "README.md"
    text = page.read_text() if page.exists() else f"{BEGIN}\n{END}\n"
    head, rest = text.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    page.write_text(f"{head}{BEGIN}\n{table(known)}\n{END}{tail}")


def quantity(value: float, unit: str) -> str:
    """Three digits and the unit that suits them."""
    scales = {
        "s": [(1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")],
        "B": [(1e6, "MB"), (1e3, "KB"), (1, "B")],
    }.get(unit, [(1, unit)])
    scale, name = next(((s, n) for s, n in scales if abs(value) >= s), scales[-1])
    return f"{value / scale:.3g} {name}"


def times(spread: dict[str, float]) -> str:
    return f"**{spread['median']:.3g} ×** [{spread['low']:.3g} … {spread['high']:.3g}]"


def table(records: dict[str, Any]) -> str:
    """One part per family: a line per row and cost, a column per peer."""
    parts = []
    families: dict[str, list[Any]] = {}
    for name, one in records.items():
        families.setdefault(name.split("/")[0], []).append(one)
    for family, rows in families.items():
        parts.append(f"### {family}\n\n{family_table(rows)}\n\n{origin(rows)}")
    return "\n\n".join(parts)


def family_table(rows: list[Any]) -> str:
    peers = list(dict.fromkeys(p for one in rows for p in [one["subject"], *one["versions"]] if p))
    lines = [
        "| what | must reach | | " + " | ".join(peers) + " | A/A |",
        "|---|---|---|" + "---|" * (len(peers) + 1),
    ]
    for one in rows:
        # The cost that is meant stands first, then the others that were measured.
        costs = sorted(one["values"], key=lambda cost: (cost != one["headline"], cost == "cpu"))
        for place, cost in enumerate(costs):
            title, goal = (one["title"], one["goal"]) if place == 0 else ("", "")
            cells = [cell(one, cost, peer) for peer in peers]
            again = one["ratios"][cost].get(AGAIN)
            null = f"{again['median']:.3g} [{again['low']:.3g} … {again['high']:.3g}]" if again else ""
            label = COSTS.get(cost, (cost, ""))[0]
            lines.append(f"| {title} | {goal} | {label} | {' | '.join(cells)} | {null} |")
    return "\n".join(lines)


def cell(one: Any, cost: str, peer: str) -> str:
    if peer in one["failures"]:
        return "failed"
    value = one["values"][cost].get(peer)
    if value is None:
        return "—"
    text = quantity(value["median"], COSTS.get(cost, ("", ""))[1])
    ratio = one["ratios"][cost].get(peer)
    return f"{text}, {times(ratio)}" if ratio else text


def origin(rows: list[Any]) -> str:
    """When, where and how the family was measured."""
    last = max(rows, key=lambda one: one["date"])
    versions = {p: v for one in rows for p, v in one["versions"].items()}
    named = ", ".join(f"{peer} {version}" for peer, version in versions.items())
    quiet = ", ".join(f"{one['quiet_rounds']}/{one['rounds']}" for one in rows)
    return (
        f"{last['date']}; {last['machine']}; {last['system']}; {last['python']}; {named}; "
        f"quiet rounds {quiet}; `{last['command']}`"
    )
