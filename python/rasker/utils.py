"""Small functions that packages around Dask import: units, names, types, files."""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping
    from typing import Any

from rasker.dispatch import Dispatch as Dispatch
from rasker.traversal import is_namedtuple_instance as is_namedtuple_instance

_BYTE_UNITS = {"": 1, "b": 1}
for _i, _letter in enumerate("kmgtpe", start=1):
    _BYTE_UNITS[_letter] = _BYTE_UNITS[_letter + "b"] = 1000**_i
    _BYTE_UNITS[_letter + "i"] = _BYTE_UNITS[_letter + "ib"] = 1024**_i


def parse_bytes(s: float | str) -> int:
    """A number of bytes from a text.

    Examples
    --------
    >>> parse_bytes("100 MB"), parse_bytes("1.5kiB"), parse_bytes(5), parse_bytes("GB")
    (100000000, 1536, 5, 1000000000)
    """
    if isinstance(s, (int, float)):
        return int(s)
    found = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d+)?)?\s*([A-Za-z]*)\s*", s)
    unit = found.group(2).lower() if found else None
    if found is None or unit not in _BYTE_UNITS or not s.strip():
        raise ValueError(f"{s!r} is no number of bytes; write for instance '100 MB' or '4GiB'")
    try:
        return int(float(found.group(1) or 1) * _BYTE_UNITS[unit])
    except ValueError:
        raise ValueError(f"{s!r} is no number of bytes; write for instance '100 MB'") from None


def format_bytes(n: float) -> str:
    """A number of bytes for people, in units of 1024.

    Examples
    --------
    >>> format_bytes(1), format_bytes(1234), format_bytes(12345678)
    ('1 B', '1.21 kiB', '11.77 MiB')
    """
    for power, prefix in ((50, "Pi"), (40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "ki")):
        if n >= 2**power * 0.9:
            return f"{n / 2**power:.2f} {prefix}B"
    return f"{int(n)} B"


_TIME_UNITS = {
    "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "m": 60.0, "h": 3600.0, "d": 86400.0,
    "w": 7 * 86400.0, "sec": 1.0, "min": 60.0, "hr": 3600.0, "second": 1.0, "minute": 60.0,
    "hour": 3600.0, "day": 86400.0, "week": 7 * 86400.0, "millisecond": 1e-3, "microsecond": 1e-6,
    "nanosecond": 1e-9,
}  # fmt: skip


def parse_timedelta(s: Any, default: str | bool = "seconds") -> Any:
    """Seconds from a text, a number or a `datetime.timedelta`.

    Parameters
    ----------
    s : str, float, timedelta or None
    default : str, default 'seconds'
        The unit of a number that has none.

    Returns
    -------
    float or int, seconds; None for None

    Examples
    --------
    >>> parse_timedelta("3s"), parse_timedelta("300ms"), parse_timedelta("1 hour")
    (3, 0.3, 3600)
    """
    if s is None:
        return None
    if hasattr(s, "total_seconds"):
        seconds = s.total_seconds()
        return int(seconds) if int(seconds) == seconds else seconds
    found = re.fullmatch(r"\s*([+-]?[0-9.]+(?:e[+-]?\d+)?)?\s*([A-Za-zµ]*)\s*", str(s))
    unit = ((found.group(2) if found else "") or str(default or "")).lower()
    factor = _TIME_UNITS.get(unit) or _TIME_UNITS.get(unit.removesuffix("s"))
    if found is None or factor is None:
        raise ValueError(f"{s!r} is no time; write for instance '5s', '300 ms' or '2 hours'")
    seconds = float(found.group(1) or 1) * factor
    return int(seconds) if int(seconds) == seconds else seconds


def format_time(n: float) -> str:
    """Seconds for people.

    Examples
    --------
    >>> format_time(1), format_time(0.0012), format_time(123), format_time(1e5)
    ('1.00 s', '1.20 ms', '2m 3s', '27hr 46m')
    """
    if n > 24 * 3600 * 2:
        return f"{int(n // 86400)}d {int(n % 86400 // 3600)}hr"
    if n > 3600 * 2:
        return f"{int(n // 3600)}hr {int(n % 3600 // 60)}m"
    if n > 60 * 2 or n >= 100:
        return f"{int(n // 60)}m {int(n % 60)}s"
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if n >= factor:
            return f"{n / factor:.2f} {unit}"
    return f"{n * 1e6:.2f} us"


def funcname(func: Any) -> str:
    """A short name for a function.

    Examples
    --------
    >>> from functools import partial
    >>> funcname(len), funcname(partial(len)), funcname(lambda: 1)
    ('len', 'len', 'lambda')
    """
    while hasattr(func, "func") and not isinstance(func, type):
        func = func.func
    if isinstance(func, methodcaller):
        return func.method[:50]
    name = getattr(func, "__name__", None)
    if not isinstance(name, str):
        name = type(func).__name__
    return "lambda" if name == "<lambda>" else name[:50]


def typename(typ: Any, short: bool = False) -> str:
    """The name of a type with its module, except for builtins.

    Examples
    --------
    >>> typename(int), typename(Dispatch), typename(Dispatch, short=True)
    ('int', 'rasker.dispatch.Dispatch', 'rasker.Dispatch')
    """
    if not isinstance(typ, type):
        return typename(type(typ), short)
    module = typ.__module__
    if not module or module == "builtins":
        return typ.__name__
    return f"{module.partition('.')[0] if short else module}.{typ.__name__}"


_HEX = re.compile(r"[0-9a-f]+")


def key_split(s: Any) -> str:
    """The part of a key that says what kind of task it is.

    Examples
    --------
    >>> key_split("x-1"), key_split(("inc-3f2a9c", 1)), key_split("add-many-2")
    ('x', 'inc', 'add-many')
    """
    if isinstance(s, bytes):
        s = s.decode(errors="replace")
    if isinstance(s, tuple) and s:
        return key_split(s[0])
    if not isinstance(s, str):
        return "Other"
    if s.startswith(("(", "'", "<")) and not s[:1].isalpha():
        s = s.strip("('\"<").split("'")[0].split(",")[0].split(" ")[0]
        s = s.rpartition(".")[2] or s
    words = s.split("-")
    kept = [words[0].lstrip("'(\"")]
    for word in words[1:]:
        is_name = word.isalpha() and not (_HEX.fullmatch(word) and len(word) in (8, 16, 32))
        if not is_name:
            break
        kept.append(word)
    if len(kept) == 1 and len(kept[0]) == 32 and _HEX.fullmatch(kept[0]):
        return "data"
    return "-".join(kept)


class methodcaller:  # noqa: N801 - Dask's public name
    """A function that calls the method of this name; equal names share one object.

    Examples
    --------
    >>> methodcaller("upper")("a"), methodcaller("upper") is M.upper
    ('A', True)
    """

    __slots__ = ("method",)
    _made: dict[str, methodcaller] = {}

    method: str

    def __new__(cls, method: str) -> methodcaller:
        made = cls._made.get(method)
        if made is None:
            made = cls._made[method] = object.__new__(cls)
            made.method = method
        return made

    def __call__(self, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        return getattr(obj, self.method)(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return (methodcaller, (self.method,))

    @property
    def __name__(self) -> str:
        return self.method

    def __repr__(self) -> str:
        return f"<methodcaller: {self.method}>"


class MethodCache:
    """``M.name`` is ``methodcaller("name")``."""

    def __getattr__(self, name: str) -> methodcaller:
        if name.startswith("__"):
            raise AttributeError(name)
        return methodcaller(name)

    def __dir__(self) -> list[str]:
        return list(methodcaller._made)


M = MethodCache()


def apply(func: Callable[..., Any], args: Any, kwargs: Any = None) -> Any:
    """Call `func` with a sequence of arguments and a dict of keywords.

    Examples
    --------
    >>> apply(sorted, ([3, 1],), {"reverse": True})
    [3, 1]
    """
    return func(*args, **kwargs) if kwargs else func(*args)


def ensure_dict(d: Mapping[Any, Any], *, copy: bool = False) -> dict[Any, Any]:
    """A mapping as a plain dict; layered graphs are put into one.

    Parameters
    ----------
    d : mapping
    copy : bool, default False
        Copy also what is a dict already.
    """
    if type(d) is dict:
        return d.copy() if copy else d
    if hasattr(d, "to_dict") and hasattr(d, "layers"):
        return dict(d.to_dict())
    return dict(d)


def is_arraylike(x: Any) -> bool:
    """True if `x` has what an array has: shape, dtype and ``__array__``, and is no class."""
    if isinstance(x, type) or not hasattr(x, "dtype") or not hasattr(x, "shape"):
        return False
    if "dask" in typename(type(x)) and hasattr(x, "__dask_graph__"):
        return hasattr(x, "__array__")
    return isinstance(x.shape, tuple) and (
        hasattr(x, "__array__") or hasattr(x, "__array_function__") or hasattr(x, "__dlpack__")
    )


def _like(x: Any, names: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    cls = x if isinstance(x, type) else type(x)
    return all(hasattr(cls, n) for n in names) and any(p in cls.__name__.lower() for p in parts)


def is_dataframe_like(df: Any) -> bool:
    """True if `df` has what a pandas DataFrame has.

    Examples
    --------
    >>> is_dataframe_like([1])
    False
    """
    return _like(df, ("groupby", "head", "merge", "mean", "columns", "dtypes"), ("frame",))


def is_series_like(s: Any) -> bool:
    """True if `s` has what a pandas Series has."""
    return _like(s, ("groupby", "dtype", "name"), ("series",)) and "index" not in (
        (s if isinstance(s, type) else type(s)).__name__.lower()
    )


def is_index_like(s: Any) -> bool:
    """True if `s` has what a pandas Index has."""
    return _like(s, ("name", "dtype"), ("index",))


def memory_repr(num: float) -> str:
    """A number of bytes as pandas writes it.

    Examples
    --------
    >>> memory_repr(2048)
    '2.0 KB'
    """
    for unit in ("bytes", "KB", "MB", "GB"):
        if num < 1024.0:
            return f"{num:3.1f} {unit}"
        num /= 1024.0
    return f"{num:3.1f} TB"


def derived_from(original_klass: Any, **options: Any) -> Callable[[Any], Any]:
    """Give a method the docstring of the same method elsewhere, saying where it is from.

    Parameters
    ----------
    original_klass : type or module
    **options
        `version`, `ua_args`, `skipblocks`, `inconsistencies`; the last is added to the text.
    """

    def wrapper(method: Any) -> Any:
        original = getattr(original_klass, getattr(method, "__name__", ""), None)
        text = getattr(original, "__doc__", None)
        if text and not method.__doc__:
            note = f"This follows {getattr(original_klass, '__name__', original_klass)}."
            if options.get("inconsistencies"):
                note += f" {options['inconsistencies']}"
            first, _, rest = text.partition("\n\n")
            method.__doc__ = f"{first}\n\n{note}\n\n{rest}"
        return method

    return wrapper


@contextmanager
def tmpfile(extension: str = "", dir: str | None = None) -> Iterator[str]:
    """The name of a file that does not exist, removed afterwards.

    Parameters
    ----------
    extension : str, default ''
        With or without its dot.
    dir : str, optional
        Default: the system's folder for such files.
    """
    import shutil
    import tempfile

    extension = extension and "." + extension.lstrip(".")
    handle, name = tempfile.mkstemp(extension, dir=dir)
    os.close(handle)
    os.remove(name)
    try:
        yield name
    finally:
        if os.path.isdir(name):
            shutil.rmtree(name, ignore_errors=True)
        elif os.path.exists(name):
            os.remove(name)


@contextmanager
def tmpdir(dir: str | None = None) -> Iterator[str]:
    """A new empty folder, removed afterwards."""
    import tempfile

    with tempfile.TemporaryDirectory(dir=dir, ignore_cleanup_errors=True) as name:
        yield name


class SerializableLock:
    """A lock that keeps its identity through pickle, within one process.

    Parameters
    ----------
    token : hashable, optional
        Locks of one token are one lock.  Default: a new one.

    Examples
    --------
    >>> import pickle
    >>> lock = SerializableLock("file")
    >>> with lock:
    ...     pickle.loads(pickle.dumps(lock)).locked()
    True
    """

    _locks: Any = None

    def __init__(self, token: Hashable | None = None) -> None:
        import threading
        import uuid
        import weakref

        if SerializableLock._locks is None:
            SerializableLock._locks = weakref.WeakValueDictionary()
        self.token = token or str(uuid.uuid4())
        # `threading.Lock` cannot be weakly referenced everywhere; a condition holds one.
        self.lock = SerializableLock._locks.setdefault(
            self.token, threading.Condition(threading.Lock())
        )

    def acquire(self, *args: Any, **kwargs: Any) -> bool:
        """Take the lock; as `threading.Lock.acquire`."""
        return bool(self.lock.acquire(*args, **kwargs))

    def release(self) -> None:
        """Give the lock back."""
        self.lock.release()

    def locked(self) -> bool:
        """True if someone has it."""
        return bool(self.lock._lock.locked())

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self.lock.release()

    def __getstate__(self) -> Hashable:
        return self.token

    def __setstate__(self, token: Hashable) -> None:
        self.__init__(token)  # type: ignore[misc]

    def __dask_tokenize__(self) -> Any:
        return self.token

    def __repr__(self) -> str:
        return f"<SerializableLock: {self.token}>"


def has_keyword(func: Callable[..., Any], keyword: str) -> bool:
    """True if `func` has a parameter of this name."""
    import inspect

    try:
        return keyword in inspect.signature(func).parameters
    except (TypeError, ValueError):
        return False


def import_required(mod_name: str, error_msg: str) -> Any:
    """Import a module, or raise RuntimeError with `error_msg`."""
    from importlib import import_module

    try:
        return import_module(mod_name)
    except ImportError as error:
        raise RuntimeError(error_msg) from error


def natural_sort_key(s: str) -> list[str | int]:
    """A key that sorts numbers in texts as numbers.

    Examples
    --------
    >>> sorted(["f10", "f2"], key=natural_sort_key)
    ['f2', 'f10']
    """
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", s)]


def format_time_ago(n: Any) -> str:
    """How long ago a moment was, in its largest unit."""
    from datetime import datetime

    delta = datetime.now() - n
    seconds = delta.total_seconds()
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "Just now"


def is_integer(i: Any) -> bool:
    """True for ints and what counts as one, such as ``numpy.int64``."""
    import operator

    try:
        operator.index(i)
    except TypeError:
        return False
    return True


system_encoding = sys.getdefaultencoding()
