"""Jobs that need more memory than there is, and how each must end.

Each job is a function that returns what was measured and raises AssertionError if the job went
wrong.  As a program it runs one of them so many times, in a memory cgroup if it can make one::

    python tests/cluster/memory_jobs.py streamed --limit 512MiB --runs 20 --cgroup
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from rasker.distributed import Client, LocalCluster, TaskOutOfMemory, wait
from rasker.utils import parse_bytes

CHUNK = 8 << 20
N_WORKERS = 2
FAN_IN = 8


def make(i: int) -> np.ndarray:
    return np.full(CHUNK // 8, float(i))


def total(*chunks: np.ndarray) -> float:
    return float(sum(float(chunk.sum()) for chunk in chunks))


def add(*parts: float) -> float:
    return float(sum(parts))


def allocate(nbytes: int) -> int:
    return len(np.ones(nbytes, dtype="u1"))


def grow(nbytes: int) -> int:
    """Take memory piece by piece, each of them small enough to be granted."""
    pieces = []
    for _ in range(nbytes // CHUNK):
        pieces.append(np.ones(CHUNK, dtype="u1"))
    return len(pieces)


def increment(i: int) -> int:
    time.sleep(0.002)
    return i + 1


def tree(client: Client, chunks: Any) -> Any:
    n = len(chunks)
    level = [client.submit(total, *chunks[i : i + FAN_IN], pure=False) for i in range(0, n, FAN_IN)]
    while len(level) > 1:
        level = [
            client.submit(add, *level[i : i + FAN_IN], pure=False)
            for i in range(0, len(level), FAN_IN)
        ]
    return level[0]


def expected(n: int) -> float:
    return float(n * (n - 1) // 2) * (CHUNK // 8)


def cluster(limit: int, folder: str | None, **more: Any) -> LocalCluster:
    return LocalCluster(
        n_workers=N_WORKERS,
        threads_per_worker=1,
        memory_limit=limit,
        local_directory=folder,
        **more,
    )


def disk_of(client: Client) -> dict[str, float]:
    """What went to disk and came back, over all workers."""
    time.sleep(0.7)  # workers say how they are twice a second
    sums: dict[str, float] = {}
    for worker in client.scheduler_info()["workers"].values():
        for name, value in worker["metrics"]["disk"].items():
            sums[name] = sums.get(name, 0) + value
        sums["spilled_bytes"] = sums.get("spilled_bytes", 0) + worker["metrics"]["spilled_bytes"]
    return sums


def n_chunks(limit: int, factor: float) -> int:
    return int(factor * N_WORKERS * limit / CHUNK) // FAN_IN * FAN_IN


def streamed(limit: int, factor: float = 8, folder: str | None = None) -> dict[str, Any]:
    """The sum over data of `factor` times all limits, which is never needed at once."""
    n = n_chunks(limit, factor)
    with cluster(limit, folder) as workers, Client(workers) as client:
        started = time.perf_counter()
        result = tree(client, client.map(make, range(n))).result(300)
        seconds = time.perf_counter() - started
        disk = disk_of(client)
    assert result == expected(n), result
    assert disk["written_bytes"] == 0, disk
    return {"bytes": n * CHUNK, "seconds": seconds}


def probe(folder: str | None, nbytes: int = 512 << 20) -> dict[str, float]:
    """The disk's speed by direct transfers of 4 MiB, bytes per second."""
    handle, path = tempfile.mkstemp(dir=folder)
    os.close(handle)
    block = mmap.mmap(-1, 4 << 20)
    block[:] = os.urandom(1 << 20) * 4
    try:
        fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    except OSError:  # a file system without direct transfers
        fd = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(fd, 0, nbytes)
        started = time.perf_counter()
        for at in range(0, nbytes, len(block)):
            os.pwrite(fd, block, at)
        write = nbytes / (time.perf_counter() - started)
        started = time.perf_counter()
        for at in range(0, nbytes, len(block)):
            os.preadv(fd, [block], at)
        read = nbytes / (time.perf_counter() - started)
    finally:
        os.close(fd)
        os.unlink(path)
    return {"write": write, "read": read}


def persisted(limit: int, factor: float = 4, folder: str | None = None) -> dict[str, Any]:
    """Data of `factor` times all limits, kept, and summed twice."""
    n = n_chunks(limit, factor)
    speed = probe(folder)
    with cluster(limit, folder) as workers, Client(workers) as client:
        started = time.perf_counter()
        chunks = client.map(make, range(n))
        wait(chunks, timeout=300)
        made = time.perf_counter() - started
        written = disk_of(client)
        started = time.perf_counter()
        results = [tree(client, chunks).result(300) for _ in range(2)]
        summed = time.perf_counter() - started
        disk = disk_of(client)
    assert results == [expected(n)] * 2, results
    assert disk["lost_values"] == 0, disk
    assert written["spilled_bytes"] >= n * CHUNK - N_WORKERS * limit, (written, n * CHUNK)
    return {
        "bytes": n * CHUNK,
        "made_seconds": made,
        "summed_seconds": summed,
        "disk_write_share": disk["written_bytes"] / disk["write_seconds"] / speed["write"],
        "disk_read_share": disk["read_bytes"] / disk["read_seconds"] / speed["read"],
        # Of all the time that the job took, computing included.
        "made_share": written["written_bytes"] / made / speed["write"],
        "summed_share": (
            (disk["written_bytes"] - written["written_bytes"]) / speed["write"]
            + disk["read_bytes"] / speed["read"]
        )
        / summed,
        "probe_write": speed["write"],
        "probe_read": speed["read"],
    }


def spike(limit: int, factor: float = 4, folder: str | None = None) -> dict[str, Any]:
    """A task that asks for `factor` times the limit at once, and one that gets there in steps."""
    nbytes = int(limit * factor)
    with cluster(limit, folder) as workers, Client(workers) as client:
        pids = {w["pid"] for w in client.scheduler_info()["workers"].values()}
        innocent = client.map(increment, range(200))
        started = time.perf_counter()
        for guilty in (client.submit(allocate, nbytes), client.submit(grow, nbytes)):
            try:
                guilty.result(120)
            except TaskOutOfMemory as error:
                assert guilty.key in str(error), error
            else:
                raise AssertionError(f"{nbytes} bytes were granted")
        seconds = time.perf_counter() - started
        assert client.gather(innocent) == list(range(1, 201))
        assert pids == {w["pid"] for w in client.scheduler_info()["workers"].values()}
    return {"seconds": seconds}


def damage(path: Path, kind: int) -> None:
    """Damages a spill file in one of five ways."""
    size = path.stat().st_size
    with open(path, "r+b") as stream:
        if kind == 0:  # a flipped bit of the content
            stream.seek(size // 2)
            byte = stream.read(1)[0]
            stream.seek(size // 2)
            stream.write(bytes([byte ^ 16]))
        elif kind == 1:
            stream.truncate(size // 2)
        elif kind == 2:  # a page of zeros; the content has none
            stream.seek(8192)
            stream.write(bytes(4096))
        elif kind == 3:  # the header of a stale record
            stream.seek(16)
            stream.write(os.urandom(8))
        else:  # a flipped bit of the header
            stream.seek(35)
            byte = stream.read(1)[0]
            stream.seek(35)
            stream.write(bytes([byte ^ 1]))


def small(i: int) -> np.ndarray:
    return np.full(16 << 10, float(i + 1))  # 128 KiB


def is_whole(chunk: np.ndarray, i: int) -> bool:
    return bool((chunk == i + 1).all()) and chunk.shape == (16 << 10,)


def damaged(limit: int, n: int = 1000, folder: str | None = None) -> dict[str, Any]:
    """`n` damaged spill files: no wrong value, and each of them made again."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        with cluster(limit, own) as workers, Client(workers) as client:
            # As many more as fit into memory, so that `n` are on disk.
            count = n + int(N_WORKERS * limit / (128 << 10))
            chunks = client.map(small, range(count))
            wait(chunks, timeout=300)
            deadline = time.monotonic() + 60
            files: list[Path] = []
            while len(files) < n and time.monotonic() < deadline:
                files = sorted(Path(own).glob("rasker-spill-*/*"))
                time.sleep(0.2)
            assert len(files) >= n, len(files)
            n_damaged = 0
            for kind, path in enumerate(files):
                try:
                    damage(path, kind % 5)
                    n_damaged += 1
                except FileNotFoundError:
                    pass  # freed just now
            checks = client.map(is_whole, chunks, range(count))
            wrong = client.gather(checks).count(False)
            disk = disk_of(client)
    assert wrong == 0, f"{wrong} wrong values"
    assert disk["lost_values"] >= n_damaged // 2, (disk, n_damaged)
    return {"damaged": n_damaged, "found": disk["lost_values"]}


def filled(limit: int, folder: str | None = None) -> dict[str, Any]:
    """The disk fills up in the middle of the job and is freed later: the job ends well."""
    room = int(1.5 * N_WORKERS * limit)
    n = n_chunks(limit, 2)
    with tempfile.TemporaryDirectory(dir=folder) as own, SmallDisk(own, room) as disk:
        with cluster(limit, own) as workers, Client(workers) as client:
            disk.fill()
            chunks = client.map(make, range(n))
            time.sleep(3)
            spilled = disk_of(client)["spilled_bytes"]
            disk.free()
            result = tree(client, chunks).result(300)
            after = disk_of(client)
    assert result == expected(n), result
    assert after["lost_values"] == 0, after
    return {"spilled_while_full": spilled, "spilled_after": after["written_bytes"]}


class SmallDisk:
    """A tmpfs of so many bytes at `path`, where that can be had; else nothing."""

    def __init__(self, path: str, nbytes: int) -> None:
        self.path, self.nbytes = path, nbytes
        self.is_mounted = False

    def __enter__(self) -> SmallDisk:
        command = ["mount", "-t", "tmpfs", "-o", f"size={self.nbytes},mode=0700", "none", self.path]
        done = subprocess.run(command, capture_output=True)
        self.is_mounted = done.returncode == 0
        return self

    def fill(self) -> None:
        if self.is_mounted:
            with open(f"{self.path}/filler", "wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, int(self.nbytes * 0.98))

    def free(self) -> None:
        if self.is_mounted:
            os.unlink(f"{self.path}/filler")

    def __exit__(self, *_: object) -> None:
        if self.is_mounted:
            subprocess.run(["umount", "-l", self.path], check=True)


JOBS = {
    "streamed": streamed,
    "persisted": persisted,
    "spike": spike,
    "damaged": damaged,
    "filled": filled,
}


class Cgroup:
    """A memory cgroup of version 1 or 2 below this process's own; None where it cannot be made."""

    def __init__(self, nbytes: int) -> None:
        name = f"rasker-test-{os.getpid()}"
        self.path: Path | None = None
        for root, limit in (
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ):
            path = Path(root) / name
            try:
                path.mkdir()
                (path / limit).write_text(str(nbytes))
                self.path = path
                return
            except OSError:
                if path.is_dir():
                    path.rmdir()

    def n_kills(self) -> int:
        assert self.path is not None
        for name in ("memory.oom_control", "memory.events"):
            file = self.path / name
            if file.exists():
                for line in file.read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        raise AssertionError("the kernel does not say how often it killed")

    def peak(self) -> int:
        assert self.path is not None
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            if (self.path / name).exists():
                return int((self.path / name).read_text())
        return 0

    def close(self) -> None:
        for _ in range(50):
            try:
                if self.path is not None:
                    self.path.rmdir()
                return
            except OSError:
                time.sleep(0.1)


def in_cgroup(job: str, limit: int, extra: int = 256 << 20, **more: Any) -> dict[str, Any] | None:
    """Runs a job within the limits of its workers and `extra` bytes for everything else; None if
    no memory cgroup can be made here."""
    group = Cgroup(N_WORKERS * limit + extra)
    if group.path is None:
        return None
    try:
        command = [sys.executable, __file__, job, "--limit", str(limit)]
        for name, value in more.items():
            command += [f"--{name}", str(value)]
        enter = ["sh", "-c", 'echo $$ > "$0"; exec "$@"', str(group.path / "cgroup.procs")]
        done = subprocess.run(enter + command, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        assert group.n_kills() == 0, f"the kernel killed {group.n_kills()} processes"
        result = json.loads(done.stdout.splitlines()[-1])
        return {**result, "peak": group.peak(), "limit": N_WORKERS * limit}
    finally:
        group.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--limit", default="256MiB", help="of each worker")
    parser.add_argument("--factor", type=float, help="how many times the limit there is of data")
    parser.add_argument("--n", type=int, help="how many values are damaged")
    parser.add_argument("--folder", help="where to spill")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--cgroup", action="store_true", help="in a memory cgroup")
    args = parser.parse_args()
    limit = int(parse_bytes(args.limit))
    named = {"factor": args.factor, "folder": args.folder, "n": args.n}
    more = {name: value for name, value in named.items() if value is not None}
    for _ in range(args.runs):
        if args.cgroup:
            result = in_cgroup(args.job, limit, **more)
        else:
            result = JOBS[args.job](limit, **more)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
