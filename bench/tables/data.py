"""TPC-H and TPC-DS as Parquet files, made once for each scale and kept in `.data`."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".data"
# Large enough that a file of scale 1 has some tens of groups, as writers of such files choose.
ROW_GROUP = "64MB"

TABLES = {
    "tpch": "customer lineitem nation orders part partsupp region supplier".split(),
    "tpcds": (
        "call_center catalog_page catalog_returns catalog_sales customer customer_address "
        "customer_demographics date_dim household_demographics income_band inventory item "
        "promotion reason ship_mode store store_returns store_sales time_dim warehouse web_page "
        "web_returns web_sales web_site"
    ).split(),
}

GENERATE_TPCDS = """
import sys
import duckdb
scale, folder, *tables = sys.argv[1:]
connection = duckdb.connect(config={"memory_limit": "2GB"})
connection.execute("LOAD tpcds")
connection.execute(f"CALL dsdgen(sf={scale})")
for table in tables:
    connection.execute(f"COPY {table} TO '{folder}/{table}.parquet' (FORMAT parquet)")
"""


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Lets one process at a time make what is called so."""
    FOLDER.mkdir(exist_ok=True)
    with open(FOLDER / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of that name under `.data`; it is filled aside and renamed, so it is whole."""
    folder = FOLDER / name
    if folder.exists():
        return folder
    with alone(name):
        if not folder.exists():
            aside = FOLDER / f"{name}.partial"
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            make(aside)
            aside.rename(folder)
    return folder


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed with {done.returncode}\n{done.stderr[-2000:]}")


def make_tpch(folder: Path, scale: str) -> None:
    program = Path(sysconfig.get_path("scripts")) / "tpchgen-cli"
    options = ["-s", scale, "--row-group-bytes", ROW_GROUP, "-o", str(folder)]
    run(str(program), "parquet", *options)


def install_generator(folder: Path) -> None:
    """An old DuckDB in a folder, not in the environment, where a new one is the peer."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*install, "--target", str(folder), "-r", str(ROOT / "requirements-tpcds.txt"))


def make_tpcds(folder: Path, scale: str) -> None:
    library = made_once("tpcds-generator", install_generator)
    program = f"import sys; sys.path.insert(0, {str(library)!r})\n{GENERATE_TPCDS}"
    run(sys.executable, "-c", program, scale, str(folder), *TABLES["tpcds"])


def tables(kind: str, scale: str) -> dict[str, str]:
    """The paths of the tables of `kind` ("tpch" or "tpcds") at a scale such as "0.01"."""
    make = {"tpch": make_tpch, "tpcds": make_tpcds}[kind]
    folder = made_once(f"{kind}-{scale}", lambda aside: make(aside, scale))
    return {table: str(folder / f"{table}.parquet") for table in TABLES[kind]}


if __name__ == "__main__":
    print(tables(*sys.argv[1:3]))
