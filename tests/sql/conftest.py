"""Contexts that run statements here and on workers, and the tables of the benchmarks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))


@pytest.fixture
def embedded():
    from rasker.sql import Context

    return Context(threads=2)
