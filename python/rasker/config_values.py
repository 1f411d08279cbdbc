"""Nested configuration values: laying one over another, reading texts and files."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal


def user_folder() -> str:
    """The folder of the user's own configuration."""
    return os.environ.get("RASKER_CONFIG") or os.path.join(
        os.path.expanduser("~"), ".config", "rasker"
    )


def canonical_name(k: str, config: Mapping[Any, Any]) -> str:
    """The spelling of `k` that `config` already uses; ``-`` and ``_`` are equal.

    Parameters
    ----------
    k : str
        One part of a key, without dots.
    config : mapping
        The level in which `k` is looked up.

    Returns
    -------
    str
        The spelling found, or `k` itself where there is none.

    Examples
    --------
    >>> canonical_name("a_b", {"a-b": 1})
    'a-b'
    """
    if k in config or not isinstance(k, str):
        return k
    for other in (k.replace("_", "-"), k.replace("-", "_")):
        if other in config:
            return other
    return k


def update(
    old: dict[str, Any],
    new: Mapping[str, Any],
    priority: Literal["old", "new", "new-defaults"] = "new",
    defaults: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Lay the nested mapping `new` over `old`, in place.

    Parameters
    ----------
    old : dict
        Changed in place.
    new : mapping
        Nested values to add.
    priority : {'new', 'old', 'new-defaults'}, default 'new'
        Who wins where both have a value.  With ``'new-defaults'`` the new value wins only where the
        old one is still what `defaults` says.
    defaults : mapping, optional
        Needed by ``'new-defaults'``.

    Returns
    -------
    dict
        `old`.

    Examples
    --------
    >>> update({"x": 1, "y": {"a": 2}}, {"y": {"a": 3, "b": 4}})
    {'x': 1, 'y': {'a': 3, 'b': 4}}
    """
    for name, value in new.items():
        k = canonical_name(name, old)
        if isinstance(value, Mapping):
            if not isinstance(old.get(k), dict):
                if k in old and old[k] is not None and priority == "old":
                    continue
                old[k] = {}
            below = defaults.get(k) if isinstance(defaults, Mapping) else None
            update(old[k], value, priority, below if isinstance(below, Mapping) else None)
        elif (
            priority == "new"
            or k not in old
            or (
                priority == "new-defaults"
                and isinstance(defaults, Mapping)
                and k in defaults
                and defaults[k] == old[k]
            )
        ):
            old[k] = value
    return old


def merge(*dicts: Mapping[str, Any]) -> dict[str, Any]:
    """A new nested dict of all `dicts`; later ones win.

    Examples
    --------
    >>> merge({"x": 1, "y": {"a": 2}}, {"y": {"a": 3, "b": 4}})
    {'x': 1, 'y': {'a': 3, 'b': 4}}
    """
    result: dict[str, Any] = {}
    for d in dicts:
        update(result, d)
    return result


def interpret_value(value: str) -> Any:
    """Read a value from the environment as Python would, else as text.

    Examples
    --------
    >>> interpret_value("12"), interpret_value("true"), interpret_value("a b")
    (12, True, 'a b')
    """
    try:
        return ast.literal_eval(value)
    except (SyntaxError, ValueError):
        pass
    return {"none": None, "null": None, "false": False, "true": True}.get(value.lower(), value)


def ensure_file(source: str, destination: str | None = None, comment: bool = True) -> None:
    """Copy a configuration file to the user's folder unless one is there.

    Parameters
    ----------
    source : str
        The file with the defaults, usually inside a package.
    destination : str, optional
        A file or folder.  Default: the user's configuration folder.
    comment : bool, default True
        Put every line into a comment, so that the copy changes nothing until it is edited.
    """
    destination = destination or user_folder()
    is_file = os.path.splitext(destination)[1].strip(".") in ("yaml", "yml", "json")
    folder = os.path.dirname(destination) if is_file else destination
    target = destination if is_file else os.path.join(folder, os.path.basename(source))
    try:
        if os.path.exists(target):
            return
        os.makedirs(folder or ".", exist_ok=True)
        with open(source, encoding="utf-8") as stream:
            lines = list(stream)
        if comment:
            lines = [
                line if line.startswith("#") or not line.strip() else "# " + line for line in lines
            ]
        # Written beside and renamed, so that two processes cannot leave half a file.
        part = f"{target}.{os.getpid()}"
        with open(part, "w", encoding="utf-8") as stream:
            stream.writelines(lines)
        os.replace(part, target)
    except OSError:
        return  # a home that cannot be written to is no reason not to start


def expand_environment_variables(config: Any) -> Any:
    """Replace ``$NAME`` in every text of a nested structure.

    Examples
    --------
    >>> import os; os.environ["COLOR"] = "blue"
    >>> expand_environment_variables({"x": ["$COLOR"]})
    {'x': ['blue']}
    """
    if isinstance(config, str):
        return os.path.expandvars(config)
    if isinstance(config, Mapping):
        return {k: expand_environment_variables(v) for k, v in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)([expand_environment_variables(v) for v in config])
    return config


def serialize(data: Any) -> str:
    """Text (base64 of JSON) that `deserialize` turns back; serves environment variables."""
    import base64
    import json

    return base64.urlsafe_b64encode(json.dumps(data).encode()).decode()


def deserialize(data: str) -> Any:
    """The inverse of `serialize`.

    Examples
    --------
    >>> deserialize(serialize({"x": [1, None]}))
    {'x': [1, None]}
    """
    import base64
    import json

    return json.loads(base64.urlsafe_b64decode(data.encode()).decode())


def yaml_files(places: Sequence[str]) -> Iterator[str]:
    for place in places:
        if not os.path.exists(place):
            continue
        if not os.path.isdir(place):
            yield place
            continue
        try:
            names = sorted(os.listdir(place))
        except OSError:
            continue  # a folder that we may not read has nothing to say to us
        for name in names:
            if os.path.splitext(name)[1].lower() in (".json", ".yaml", ".yml"):
                yield os.path.join(place, name)


def load_yaml(file: str) -> dict[str, Any] | None:
    import yaml

    try:
        with open(file, encoding="utf-8") as stream:
            data = yaml.safe_load(stream)
    except OSError:
        return None
    except yaml.YAMLError as error:
        raise ValueError(
            f"configuration file {file!r} is not YAML: {error}; correct or remove it"
        ) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ValueError(
            f"configuration file {file!r} must hold a mapping, not a {type(data).__name__}"
        )
    return data
