"""The benchmarks: one harness, Rasker and its peers in turn, pair by pair, in one run."""
