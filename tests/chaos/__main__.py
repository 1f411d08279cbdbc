"""The long run: `python -m tests.chaos`, or `make chaos`."""

from __future__ import annotations

import argparse
import statistics
import sys

from tests.chaos.faults import FAULTS
from tests.chaos.jobs import JOBS
from tests.chaos.run import Outcome, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1, help="of the first run")
    parser.add_argument("--library", choices=["rasker", "dask"], default="rasker")
    parser.add_argument("--faults", default="kill-executor,kill-worker", help=", ".join(FAULTS))
    parser.add_argument("--each", type=int, default=5, help="faults in a run")
    parser.add_argument("--pause", type=float, default=0.25, help="seconds between faults")
    parser.add_argument("--timeout", type=float, default=120)
    args = parser.parse_args()
    kinds = args.faults.split(",")
    quiet = {
        job.name: statistics.median(
            run(args.library, job, seed, kinds, n_faults=0).seconds for seed in range(3)
        )
        for job in JOBS
    }
    outcomes: list[Outcome] = []
    for seed in range(args.seed, args.seed + args.runs):
        job = JOBS[seed % len(JOBS)]
        outcome = run(args.library, job, seed, kinds, args.each, args.pause, args.timeout)
        outcomes.append(outcome)
        ratio = outcome.seconds / quiet[job.name]
        print(
            f"seed {seed}: {job.name}, {outcome.n_faults} faults, {outcome.seconds:.2f} s "
            f"({ratio:.1f} x), {outcome.verdict}",
            flush=True,
        )
    ratios = sorted(o.seconds / quiet[o.job] for o in outcomes)
    n_right = sum(o.is_right for o in outcomes)
    print(
        f"{args.library}: {n_right} of {len(outcomes)} right, "
        f"{sum(o.n_faults for o in outcomes)} faults ({args.faults}), time against a run without: "
        f"median {statistics.median(ratios):.2f} x, most {ratios[-1]:.2f} x"
    )
    return 0 if n_right == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
