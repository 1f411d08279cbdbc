"""Versions of Python and of packages, to compare client and workers."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PACKAGES = ("rasker", "cloudpickle", "numpy", "pandas", "pyarrow")


def collect(packages: list[str] | None = None) -> dict[str, Any]:
    """What this process runs on.

    Parameters
    ----------
    packages : list of str, optional
        More than the usual.

    Returns
    -------
    dict
        With 'host' (pairs about Python and the system) and 'packages' (name to version or None).
    """
    import platform
    import sys
    from importlib.metadata import PackageNotFoundError, version

    from rasker._version import __version__

    found: dict[str, str | None] = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in (*_PACKAGES, *(packages or ())):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = __version__ if name == "rasker" else None
    host = {
        "python": sys.version.split()[0],
        "python-bits": sys.maxsize.bit_length() + 1,
        "OS": platform.system(),
        "OS-release": platform.release(),
        "machine": platform.machine(),
        "byteorder": sys.byteorder,
    }
    return {"host": host, "packages": found}


def compare(found: dict[str, Any]) -> None:
    """Raise ValueError if a worker has another version of something than the client."""
    own = found["client"]["packages"]
    wrong = []
    for address, worker in found["workers"].items():
        for name, version in own.items():
            there = worker["packages"].get(name)
            if there != version:
                wrong.append(f"{name}: {version} here, {there} on {address}")
    if wrong:
        raise ValueError(
            f"versions differ: {'; '.join(wrong)}. Values may not unpickle; install the same "
            "versions everywhere"
        )


def get_versions(packages: list[str] | None = None) -> dict[str, Any]:
    """The same as `collect`, under Dask's name."""
    return collect(packages)
