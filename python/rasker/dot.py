"""Pictures of graphs: by graphviz where the program `dot` is there, else as text."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

from rasker.core import _walk, keys_in_tasks
from rasker.utils import funcname


def _label(value: Any) -> str:
    if type(value) is tuple and value and callable(value[0]):
        func = value[1] if funcname(value[0]) in ("_apply", "apply") else value[0]
        return funcname(func) if callable(func) else funcname(value[0])
    func = getattr(value, "func", None)
    if callable(func):
        return funcname(func)
    return type(value).__name__


def _edges(dsk: Mapping[Any, Any]) -> dict[Any, list[Any]]:
    return {k: list(dict.fromkeys(keys_in_tasks(dsk, [v], as_list=True))) for k, v in dsk.items()}


def text(dsk: Mapping[Any, Any]) -> str:
    """A graph as an indented text: each result above what it needs.

    Parameters
    ----------
    dsk : mapping

    Examples
    --------
    >>> print(text({"x": (abs, 1), "y": (sum, ["x", "x"])}))
    y = sum
      x = abs
    """
    edges = _edges(dsk)
    needed = {d for deps in edges.values() for d in deps}
    roots = [k for k in dsk if k not in needed] or list(dsk)[:1]
    lines: list[str] = []
    seen: set[Any] = set()
    stack = [(k, 0) for k in reversed(roots)]
    while stack:
        key, depth = stack.pop()
        # Deep graphs are drawn to a depth that a line can show.
        pad = "  " * min(depth, 30)
        if key in seen:
            lines.append(f"{pad}{key} (above)")
            continue
        seen.add(key)
        lines.append(f"{pad}{key} = {_label(dsk[key])}")
        stack.extend((d, depth + 1) for d in reversed(edges[key]))
    return "\n".join(lines)


def dot_source(dsk: Mapping[Any, Any], **attributes: Any) -> str:
    """A graph in the language of graphviz.

    Parameters
    ----------
    dsk : mapping
    **attributes
        Of the drawing, for instance ``rankdir='LR'``.
    """
    edges = _edges(dsk)
    order, _ = _walk(edges, edges)
    number = {k: i for i, k in enumerate(order)}
    lines = ["digraph {"]
    for name, value in {"rankdir": "BT", **attributes}.items():
        lines.append(f"  {name}={_quoted(value)};")
    for key in order:
        lines.append(
            f"  n{number[key]} [label={_quoted(_label(dsk[key]))}, "
            f"tooltip={_quoted(key)}, shape=circle];"
        )
    for key in order:
        lines.extend(f"  n{number[d]} -> n{number[key]};" for d in edges[key] if d in number)
    return "\n".join([*lines, "}"])


def _quoted(value: Any) -> str:
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class Drawing:
    """A graph as a picture and as a text.

    Attributes
    ----------
    format : str
        'svg', 'png', 'pdf', 'dot' or 'txt'.
    data : bytes
        What the file holds.
    filename : str or None
        Where it was written.
    """

    def __init__(self, format: str, data: bytes, shown: str, filename: str | None) -> None:
        self.format = format
        self.data = data
        self.filename = filename
        self._text = shown

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._text

    def _repr_svg_(self) -> str | None:
        return self.data.decode() if self.format == "svg" else None

    def _repr_png_(self) -> bytes | None:
        return self.data if self.format == "png" else None


def draw(
    dsk: Mapping[Any, Any],
    filename: str | None = "mydask",
    format: str | None = None,
    engine: str | None = None,
    **attributes: Any,
) -> Drawing:
    """Draw a graph, and write it to a file unless `filename` is None.

    Parameters
    ----------
    dsk : mapping
    filename : str or None
        An ending that says a format is taken as such.
    format : {'svg', 'png', 'pdf', 'dot', 'txt'}, optional
    engine : {'graphviz', 'text'}, optional
    **attributes
        Of the drawing.

    Raises
    ------
    RuntimeError
        When called, if graphviz is asked for and its program ``dot`` is not there.
    """
    import os
    import shutil

    from rasker import config

    engine = config.get("visualization.engine", None, override_with=engine)
    if filename is not None:
        stem, ending = os.path.splitext(filename)
        if ending[1:] in ("svg", "png", "pdf", "dot", "txt"):
            filename, format = stem, format or ending[1:]
    program = shutil.which("dot")
    if engine not in (None, "graphviz", "text"):
        raise NotImplementedError(
            f"drawing engine {engine!r} is not built; use 'graphviz' or 'text'"
        )
    if engine == "graphviz" and program is None and format != "dot":
        raise RuntimeError(
            "program `dot` not found; install graphviz (`apt install graphviz`, `brew install "
            "graphviz`), or use engine='text'"
        )
    shown = text(dsk)
    if format == "txt" or engine == "text" or (program is None and format != "dot"):
        format, data = "txt", shown.encode()
    else:
        source = dot_source(dsk, **attributes).encode()
        format = format or "svg"
        data = source if format == "dot" else _run_dot(program, format, source)
    path = None
    if filename is not None:
        path = f"{filename}.{format}"
        with open(path, "wb") as stream:
            stream.write(data)
    return Drawing(format, data, shown, path)


def _run_dot(program: str | None, format: str, source: bytes) -> bytes:
    import subprocess

    done = subprocess.run(
        [program or "dot", f"-T{format}"], input=source, capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"program `dot` failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
