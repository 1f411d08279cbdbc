"""What this computer has: cores and memory, as its control group allows."""

from __future__ import annotations

import os

from rasker.local import CPU_COUNT as CPU_COUNT
from rasker.utils import parse_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def memory_total() -> int:
    """Memory that this process and its children may use, bytes."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _limit_files():
        try:
            with open(path, encoding="ascii") as stream:
                limits.append(int(stream.read()))
        except (OSError, ValueError):
            pass  # no such control group, or "max"
    return min(n for n in limits if n > 0)


def _limit_files() -> list[str]:
    """The files that may limit this process: of its control group and of those around it."""
    files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except OSError:
        return files
    roots: tuple[str, ...]
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            roots, name = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"), "memory.max"
        elif "memory" in controllers.split(","):
            roots, name = (f"/sys/fs/cgroup/{controllers}",), "memory.limit_in_bytes"
        else:
            continue
        while group.strip("/"):
            files.extend(f"{root}/{group.strip('/')}/{name}" for root in roots)
            group = os.path.dirname(group)
    return files


def memory_shares() -> dict[str, float]:
    """What the configuration says of the steps by which a worker keeps within its memory."""
    from rasker import config

    shares: dict[str, float] = {}
    for name in ("target", "spill", "pause", "terminate"):
        value = config.get(f"distributed.worker.memory.{name}", None)
        if value is not None:
            shares[name] = float(value)
            if not 0 <= shares[name] <= 1:
                raise ValueError(
                    f"distributed.worker.memory.{name} is a share from 0 to 1 or False, "
                    f"not {value!r}"
                )
    most = config.get("distributed.worker.memory.max-spill", False)
    if most is not False and most is not None:
        shares["max-spill"] = float(parse_bytes(most))
    return shares


def memory_limit_of(given: Any, n_workers: int) -> int:
    """The limit of one worker, bytes; 0 for none.

    Parameters
    ----------
    given : 'auto', None, int, float or str
        'auto' shares all memory among the workers; a float up to 1 is a part of all memory; 0 or
        None is no limit; else bytes, or a text such as '4GiB'.
    n_workers : int
    """
    if given is None or given == 0 or given == "0":
        return 0
    if given == "auto":
        return memory_total() // max(n_workers, 1)
    if isinstance(given, str):
        try:
            given = float(given)
        except ValueError:
            return min(parse_bytes(given), memory_total())
    if isinstance(given, float) and given <= 1:
        return int(given * memory_total())
    if given < 0:
        raise ValueError(f"memory limit must be 0 or more, not {given!r}")
    return min(int(given), memory_total())


def shape_of(
    n_workers: int | None, threads_per_worker: int | None, processes: bool
) -> tuple[int, int]:
    """How many workers, and threads for each, where the user has not said.

    Few cores get a process each; many are shared by about as many processes as threads each.
    """
    cores = CPU_COUNT
    if n_workers is not None and n_workers < 0:
        raise ValueError(f"n_workers must be 0 or more, not {n_workers}")
    if threads_per_worker is not None and threads_per_worker < 1:
        raise ValueError(f"threads_per_worker must be 1 or more, not {threads_per_worker}")
    if n_workers is None and threads_per_worker is None:
        if not processes:
            return 1, cores
        if cores <= 4:
            return cores, 1
        n_workers = min(d for d in range(1, cores + 1) if cores % d == 0 and d * d >= cores)
        return n_workers, cores // n_workers
    if n_workers is None:
        assert threads_per_worker is not None
        return (max(1, cores // threads_per_worker) if processes else 1), threads_per_worker
    if threads_per_worker is None:
        return n_workers, max(1, cores // max(n_workers, 1))
    return n_workers, threads_per_worker
