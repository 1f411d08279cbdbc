"""Real processes, killed, frozen and cut off while jobs run: the answers must be right.

`python -m tests.chaos --runs 40` prints one line for each run and a table at the end. A run is
decided by its seed: which faults come, when, and whom they hit.
"""
