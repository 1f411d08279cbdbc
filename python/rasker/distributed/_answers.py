"""The scheduler's answers in the shapes that Dask's users know."""

from __future__ import annotations

from time import time as now_s
from typing import Any


def _named(answer: dict[str, Any], workers: Any) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if not workers or name in workers}


def _texts(keys: Any) -> list[str]:
    return [str(key) for key in keys]


def shape(what: str, answer: Any, argument: Any, address: str) -> Any:
    """Give the answer to the question `what` the form that the client's method returns."""
    if what == "scheduler_info":
        for worker in answer["workers"].values():
            worker["type"] = "Worker"
            worker["status"] = "paused" if worker["paused"] else "running"
            worker["metrics"] = {
                "memory": worker["memory"],
                "managed_bytes": worker["held"],
                "spilled_bytes": worker["spilled"],
                "paused": worker["paused"],
                "disk": {
                    "written_bytes": worker.pop("disk_written"),
                    "write_seconds": worker.pop("disk_write_ns") / 1e9,
                    "read_bytes": worker.pop("disk_read"),
                    "read_seconds": worker.pop("disk_read_ns") / 1e9,
                    "lost_values": worker.pop("disk_lost"),
                },
            }
        return {**answer, "address": address, "id": f"Scheduler-{address}"}
    if what == "nthreads":
        return _named({name: w["nthreads"] for name, w in answer["workers"].items()}, argument)
    if what == "who_has":
        if argument is None:
            return {key: tuple(holders) for key, holders in answer.items()}
        # Holders come in the order in which the keys were asked for.
        holders = answer.values()
        return {key: tuple(found) for key, found in zip(argument, holders, strict=True)}
    if what in ("has_what", "processing"):
        return _named({name: tuple(keys) for name, keys in answer.items()}, argument)
    if what == "events":
        if argument is not None:
            return tuple((time, message) for _, time, message in answer)
        topics: dict[str, list[Any]] = {}
        for topic, time, message in answer:
            topics.setdefault(topic, []).append((time, message))
        return {topic: tuple(events) for topic, events in topics.items()}
    if what == "retire_workers":
        return {name: {"address": name} for name in answer}
    if what == "explain":
        return f"{answer['state']}: {answer['reason']}"
    if what == "story":
        now = now_s()
        return [(*row, {}, cause, now - age) for *row, cause, age in answer]
    if what == "call_stack":
        wanted = None if argument is None else set(_texts(argument))
        found = {}
        for name, stacks in answer.items():
            kept = {k: tuple(v) for k, v in stacks.items() if wanted is None or k in wanted}
            if kept:
                found[name] = kept
        return found
    return answer
