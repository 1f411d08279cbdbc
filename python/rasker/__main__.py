"""`python -m rasker` is the `rasker` program."""

from __future__ import annotations

import sys

from rasker.cli import main

if __name__ == "__main__":
    sys.exit(main())
