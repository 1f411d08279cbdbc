"""The query texts under `bench/queries`."""

from __future__ import annotations

from bench.tables.data import ROOT

QUERIES = ROOT / "bench" / "queries"


def texts(kind: str) -> dict[str, str]:
    """Each query of `kind` ("tpch" or "tpcds") by its name, such as "q01"."""
    return {file.stem: file.read_text() for file in sorted((QUERIES / kind).glob("*.sql"))}
