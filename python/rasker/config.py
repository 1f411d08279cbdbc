"""Configuration: defaults, YAML files, environment variables, and `set` for a while.

Later sources win: the defaults of this package, the YAML files of the system, of the environment's
prefix and of the user, variables ``RASKER_A__B_C=…`` (which set ``a.b-c``), and `set`.

Keys are paths with dots, and ``-`` and ``_`` mean the same in them.

Examples
--------
>>> from rasker import config
>>> with config.set({"worker.preload": ["a.py"]}):
...     config.get("worker.preload")
['a.py']
>>> config.get("no.such.key", default=7)
7
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rasker._defaults import DEFAULTS, DEPRECATIONS
from rasker.config_values import (
    canonical_name,
    deserialize,
    ensure_file,
    expand_environment_variables,
    interpret_value,
    load_yaml,
    merge,
    serialize,
    update,
    user_folder,
    yaml_files,
)
from rasker.typing import no_default

__all__ = [
    "canonical_name",
    "check_deprecations",
    "collect",
    "collect_env",
    "collect_yaml",
    "deserialize",
    "ensure_file",
    "expand_environment_variables",
    "get",
    "interpret_value",
    "merge",
    "paths_containing_key",
    "pop",
    "refresh",
    "rename",
    "serialize",
    "set",
    "update",
    "update_defaults",
]


def _search_paths() -> list[str]:
    found = [
        os.environ.get("RASKER_ROOT_CONFIG", "/etc/rasker"),
        os.path.join(sys.prefix, "etc", "rasker"),
        os.path.join(os.path.expanduser("~"), ".config", "rasker"),
    ]
    extra = os.environ.get("RASKER_CONFIG")
    if extra:
        found.append(extra)
    return list(dict.fromkeys(found))


paths: list[str] = _search_paths()
PATH: str = user_folder()
_values: dict[str, Any] = {}
config_lock = threading.Lock()
deprecations: dict[str, str | None] = DEPRECATIONS
_MISSING = object()
defaults: list[Mapping[str, Any]] = []


def collect_yaml(
    paths: Sequence[str] | None = None, *, return_paths: bool = False
) -> Iterator[Any]:
    """Read the YAML files at `paths`, in order.

    Parameters
    ----------
    paths : sequence of str, optional
        Files, or folders whose ``.yaml``, ``.yml`` and ``.json`` files are read in the order of
        their names.  Default: the paths that this package searches.
    return_paths : bool, default False
        Also give the path of each.

    Yields
    ------
    dict, or (pathlib.Path, dict)

    Raises
    ------
    ValueError
        If a file is not YAML, or is not a mapping at its top.
    """
    for file in yaml_files(_paths() if paths is None else paths):
        data = load_yaml(file)
        if data is None:
            continue
        if return_paths:
            from pathlib import Path

            yield Path(file), data
        else:
            yield data


def collect_env(env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Configuration from variables ``RASKER_A__B_C``, here for ``a.b-c``.

    ``RASKER_INTERNAL_INHERIT_CONFIG`` may hold what `serialize` made of a whole configuration;
    single variables win over it.

    Examples
    --------
    >>> collect_env({"RASKER_FOO__BAR_BAZ": "123"})
    {'foo': {'bar-baz': 123}}
    """
    env = os.environ if env is None else env
    result: dict[str, Any] = {}
    if "RASKER_INTERNAL_INHERIT_CONFIG" in env:
        result = deserialize(env["RASKER_INTERNAL_INHERIT_CONFIG"])
    flat: dict[str, Any] = {}
    for name, value in env.items():
        if name.startswith("RASKER_") and name not in _NOT_KEYS:
            key = name[len("RASKER_") :].lower().replace("__", ".").replace("_", "-")
            flat[key] = interpret_value(value)
    if flat:
        renamed = {}
        for key, value in flat.items():
            renamed[check_deprecations(key)] = value
        set(renamed, config=result)
    return result


_NOT_KEYS = frozenset(
    ("RASKER_CONFIG", "RASKER_ROOT_CONFIG", "RASKER_INTERNAL_INHERIT_CONFIG", "RASKER_TOKEN")
)


class set:  # noqa: N801, A001 - Dask's public name
    """Change configuration values, for the rest of the program or inside a ``with`` block.

    Parameters
    ----------
    arg : mapping, optional
        Keys with dots to values, or nested mappings.
    config : dict, optional
        What to change; default the configuration of this process.
    lock : threading.Lock, optional
        Taken while changing.
    **kwargs
        More keys; ``__`` stands for a dot.

    Examples
    --------
    >>> with set({"worker.memory.target": 0.5}, foo__bar=1):
    ...     get("worker.memory.target"), get("foo.bar")
    (0.5, 1)
    """

    config: dict[str, Any]

    def __init__(
        self,
        arg: Mapping[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        lock: threading.Lock = config_lock,
        **kwargs: Any,
    ) -> None:
        self.config = _config() if config is None else config
        self._undo: list[tuple[tuple[str, ...], bool, Any]] = []
        self._lock = lock
        with lock:
            for key, value in (arg or {}).items():
                self._assign(check_deprecations(key).split("."), value)
            for key, value in kwargs.items():
                self._assign(check_deprecations(key.replace("__", ".")).split("."), value)

    def _assign(self, parts: list[str], value: Any) -> None:
        level = self.config
        path: list[str] = []
        for part in parts[:-1]:
            name = canonical_name(part, level)
            path.append(name)
            below = level.get(name)
            if not isinstance(below, dict):
                # Undoing the highest missing level removes all that is made below it.
                self._undo.append((tuple(path), name in level, below))
                below = {}
                level[name] = below
            level = below
        name = canonical_name(parts[-1], level)
        self._undo.append(((*path, name), name in level, level.get(name)))
        level[name] = value

    def __enter__(self) -> dict[str, Any]:
        return self.config

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            for path, existed, value in reversed(self._undo):
                level = self.config
                for part in path[:-1]:
                    level = level.get(part, {})
                if existed:
                    level[path[-1]] = value
                else:
                    level.pop(path[-1], None)


def get(
    key: str,
    default: Any = no_default,
    config: Mapping[str, Any] | None = None,
    override_with: Any = None,
) -> Any:
    """The value of a key.

    Parameters
    ----------
    key : str
        A path with dots.
    default : object, optional
        Given where there is no such key.
    config : mapping, optional
        Where to look; default the configuration of this process.
    override_with : object, optional
        Returned at once unless it is None; serves arguments that default to a setting.

    Raises
    ------
    KeyError
        If the key is not there and no `default` is given.

    Examples
    --------
    >>> get("a.b", config={"a": {"b": 1}})
    1
    """
    if override_with is not None:
        return override_with
    level: Any = _config() if config is None else config
    for part in key.split("."):
        try:
            level = level[canonical_name(part, level)]
        except (TypeError, IndexError, KeyError):
            if default is no_default:
                raise KeyError(
                    f"configuration key {key!r} not found; give a default, "
                    f"or set it with rasker.config.set({{{key!r}: …}})"
                ) from None
            return default
    return level


def pop(key: str, default: Any = no_default, config: dict[str, Any] | None = None) -> Any:
    """Like `get`, and the key is removed.

    Examples
    --------
    >>> pop("a.b", config={"a": {"b": 1}})
    1
    """
    level: Any = _config() if config is None else config
    *path, last = key.split(".")
    try:
        for part in path:
            level = level[canonical_name(part, level)]
        return level.pop(canonical_name(last, level))
    except (TypeError, KeyError, AttributeError):
        if default is no_default:
            raise KeyError(f"configuration key {key!r} not found") from None
        return default


def collect(
    paths: Sequence[str] | None = None, env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Configuration from YAML files and the environment, without the defaults."""
    return merge(*collect_yaml(paths), collect_env(env))


def refresh(
    config: dict[str, Any] | None = None,
    defaults: Sequence[Mapping[str, Any]] | None = None,
    **kwargs: Any,
) -> None:
    """Read all sources again; what was `set` is forgotten.

    Parameters
    ----------
    config : dict, optional
        Changed in place; default the configuration of this process.
    defaults : sequence of mapping, optional
        Applied first; default those of this package and of `update_defaults`.
    **kwargs
        `paths` and `env` for `collect`.
    """
    config = _config() if config is None else config
    config.clear()
    for d in _defaults() if defaults is None else defaults:
        update(config, d, priority="old")
    update(config, collect(**kwargs))
    rename(deprecations, config)


def update_defaults(
    new: Mapping[str, Any],
    config: dict[str, Any] | None = None,
    defaults: list[Mapping[str, Any]] | None = None,
) -> None:
    """Add defaults of another package; what the user has set stays.

    Parameters
    ----------
    new : mapping
        Nested defaults.
    config : dict, optional
        Default: the configuration of this process.
    defaults : list, optional
        The list that `refresh` will apply.
    """
    config = _config() if config is None else config
    defaults = _defaults() if defaults is None else defaults
    current = merge(*defaults)
    defaults.append(new)
    update(config, new, priority="new-defaults", defaults=current)


def check_deprecations(key: str, deprecations: Mapping[str, str | None] = DEPRECATIONS) -> str:
    """The present name of a key, with a warning if `key` is an old one.

    Raises
    ------
    ValueError
        If the key has been removed.
    """
    old = key.replace("_", "-")
    if old not in deprecations:
        return key
    new = deprecations[old]
    if new is None:
        raise ValueError(f"configuration key {key!r} has been removed; delete it")
    import warnings

    warnings.warn(f"configuration key {key!r} is now {new!r}; use the new name", stacklevel=3)
    return new


def rename(
    deprecations: Mapping[str, str | None] = DEPRECATIONS, config: dict[str, Any] | None = None
) -> None:
    """Move values under old keys to the new ones."""
    config = _config() if config is None else config
    for old in deprecations:
        value = pop(old, default=_MISSING, config=config)
        if value is not _MISSING:
            set({check_deprecations(old, deprecations): value}, config=config)


def paths_containing_key(key: str, paths: Sequence[str] | None = None) -> Iterator[Any]:
    """The files, of those searched, that set `key`."""
    for path, data in collect_yaml(paths, return_paths=True):
        if get(key, default=_MISSING, config=data) is not _MISSING:
            yield path


# The files and the environment are read on the first question, not on import: a program that never
# asks does not pay for YAML.
_loaded = False
_load_lock = threading.RLock()


def _paths() -> list[str]:
    return paths


def _defaults() -> list[Mapping[str, Any]]:
    if not defaults:
        defaults.append(DEFAULTS)
    return defaults


def _config() -> dict[str, Any]:
    if not _loaded:
        _first_load()
    return _values


def __getattr__(name: str) -> Any:
    if name in ("config", "global_config"):
        return _config()
    raise AttributeError(f"module 'rasker.config' has no attribute {name!r}")


def _first_load() -> None:
    global _loaded
    with _load_lock:
        if _loaded:
            return
        _loaded = True  # set first: `refresh` asks for the configuration itself
        refresh(_values)
