"""What is done to the processes of a cluster."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Callable

from tests.chaos.cluster import Programs


def kill_executor(programs: Programs, rng: random.Random) -> bool:
    """A process in which tasks run dies."""
    found = programs.executors()
    if not found:
        return False
    with contextlib.suppress(OSError):
        os.kill(rng.choice(found), signal.SIGKILL)
    return True


def kill_worker(programs: Programs, rng: random.Random) -> bool:
    """A worker dies, and with it all values that it holds; another one comes."""
    victim = programs.workers.pop(rng.randrange(len(programs.workers)))
    victim.kill()
    victim.wait()
    programs.add_worker()
    return True


def retire_worker(programs: Programs, rng: random.Random) -> bool:
    """A worker is asked to end; another one comes."""
    victim = programs.workers.pop(rng.randrange(len(programs.workers)))
    victim.terminate()
    programs.frozen.append(victim)
    programs.add_worker()
    return True


def freeze_worker(programs: Programs, rng: random.Random) -> bool:
    """A worker stops without a word and is never heard of again; another one comes."""
    victim = programs.workers.pop(rng.randrange(len(programs.workers)))
    victim.send_signal(signal.SIGSTOP)
    programs.frozen.append(victim)
    programs.add_worker()
    return True


def doze(programs: Programs, rng: random.Random) -> bool:
    """A worker stops, and goes on a moment later."""
    victim = rng.choice(programs.workers)
    victim.send_signal(signal.SIGSTOP)
    programs.pending.append(lambda: victim.send_signal(signal.SIGCONT))
    return True


FAULTS: dict[str, Callable[[Programs, random.Random], bool]] = {
    "kill-executor": kill_executor,
    "kill-worker": kill_worker,
    "retire": retire_worker,
    "freeze": freeze_worker,
    "doze": doze,
}
