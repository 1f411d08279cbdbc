"""Deterministic names for values: equal arguments give equal tokens, in every process.

`tokenize` turns its arguments into nested lists, tuples and texts that say everything that matters
about them, and hashes that (BLAKE2b, 128 bits).  A type takes part by a method
``__dask_tokenize__`` that returns such a structure, or by a rule given to `normalize_token`.

Examples
--------
>>> tokenize(1, "a") == tokenize(1, "a"), tokenize(1) == tokenize(1.0)
(True, False)
>>> tokenize({"x": 1, "y": 2}) == tokenize({"y": 2, "x": 1})
True
"""

from __future__ import annotations

import sys
import threading
from hashlib import blake2b

from rasker.dispatch import Dispatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["TokenizationError", "normalize_token", "tokenize"]


class TokenizationError(RuntimeError):
    """An object has no deterministic token, and one was asked for."""


# The types whose `repr` says type and value at once.
_PLAIN = frozenset((str, int, float, bool, bytes, type(None), complex, type(Ellipsis)))


class _State(threading.local):
    # `strict` is what the outermost call to `tokenize` asked for; `open` maps the identity of each
    # container that is being walked to its depth, so that cycles end.
    strict: bool | None = None

    def __init__(self) -> None:
        self.open: dict[int, int] = {}


_state = _State()


def hash_text(text: str) -> str:
    """32 hexadecimal digits for a text; the same in every process and version."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def hash_buffer(data: Any) -> str:
    """32 hexadecimal digits for the bytes of a buffer."""
    return blake2b(data, digest_size=16).hexdigest()


def tokenize(*args: object, ensure_deterministic: bool | None = None, **kwargs: object) -> str:
    """A text that is equal for equal arguments and differs for different ones.

    Parameters
    ----------
    *args, **kwargs
        Any objects.  Dicts and sets count without their order.
    ensure_deterministic : bool, optional
        Raise for objects that have no deterministic token, instead of giving a random one.
        Default: the configuration key ``tokenize.ensure-deterministic``.

    Returns
    -------
    str, 32 hexadecimal digits

    Raises
    ------
    TokenizationError
        When called, if an argument has no deterministic token and one was asked for.

    Examples
    --------
    >>> len(tokenize([1, 2, {"a": 3}]))
    32
    """
    for a in args:
        if type(a) not in _PLAIN:
            break
    else:
        if not kwargs:
            return blake2b(repr(args).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    before = _state.strict
    if ensure_deterministic is not None:
        _state.strict = ensure_deterministic
    try:
        parts: list[Any] = [_normalize(a) for a in args]
        text = repr(tuple(parts))
        if kwargs:
            text += repr(_normalize(kwargs))
        return hash_text(text)
    finally:
        _state.strict = before


def _is_strict() -> bool:
    if _state.strict is not None:
        return _state.strict
    from rasker import config

    return bool(config.get("tokenize.ensure-deterministic", default=False))


def nondeterministic(obj: object, reason: str = "") -> Any:
    """A random token for `obj`, or TokenizationError where a deterministic one was asked for."""
    if _is_strict():
        cls = type(obj)
        raise TokenizationError(
            f"object of type {cls.__module__}.{cls.__qualname__} has no deterministic token"
            f"{': ' + reason if reason else ''}; give the class a method __dask_tokenize__, "
            "or register a rule with rasker.base.normalize_token.register"
        )
    import uuid

    return ("random", uuid.uuid4().hex)


def _normalize(obj: object) -> Any:
    if type(obj) in _PLAIN:
        return obj
    key = id(obj)
    opened = _state.open
    if key in opened:
        return ("cycle", opened[key])
    opened[key] = len(opened)
    try:
        method = getattr(type(obj), "__dask_tokenize__", None)
        if method is not None:
            cls = type(obj)
            return (f"{cls.__module__}.{cls.__qualname__}", _normalize(method(obj)))
        rule = normalize_token.dispatch(type(obj))
        result = rule(obj)
        # Rules of ours return finished structures; those of others may hold anything.
        return result if rule in _FINISHED else _normalize_result(result)
    except RecursionError:
        return nondeterministic(obj, "nested too deeply")
    finally:
        del opened[key]


def _normalize_result(result: Any) -> Any:
    if type(result) in _PLAIN:
        return result
    if type(result) in (tuple, list):
        return tuple([_normalize(r) for r in result])
    return _normalize(result)


class _NormalizeToken(Dispatch):
    def __call__(self, arg: Any, *args: Any, **kwargs: Any) -> Any:
        return _normalize(arg)


normalize_token = _NormalizeToken("normalize_token")
_FINISHED: set[Callable[..., Any]] = set()


def _rule(*types: type) -> Callable[[Any], Any]:
    def add(func: Callable[..., Any]) -> Callable[..., Any]:
        _FINISHED.add(func)
        for t in types:
            normalize_token.register(t, func)
        return func

    return add


def finished(func: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a rule whose result holds only plain values and tuples."""
    _FINISHED.add(func)
    return func


@_rule(list)
def _list(obj: list[Any]) -> Any:
    return ("list", tuple([_normalize(o) for o in obj]))


@_rule(tuple)
def _tuple(obj: tuple[Any, ...]) -> Any:
    name = "tuple" if type(obj) is tuple else _class_name(type(obj))
    return (name, tuple([_normalize(o) for o in obj]))


@_rule(dict)
def _dict(obj: dict[Any, Any]) -> Any:
    items = [(_normalize(k), _normalize(v)) for k, v in obj.items()]
    if type(obj).__name__ != "OrderedDict":
        items.sort(key=_sort_key)
    return ("dict" if type(obj) is dict else _class_name(type(obj)), tuple(items))


def _sort_key(item: Any) -> str:
    return repr(item)


@_rule(set, frozenset)
def _set(obj: set[Any]) -> Any:
    return (type(obj).__name__, tuple(sorted([_normalize(o) for o in obj], key=_sort_key)))


@_rule(bytearray, memoryview)
def _bytes(obj: Any) -> Any:
    return (type(obj).__name__, bytes(obj))


@_rule(slice)
def _slice(obj: slice) -> Any:
    return ("slice", _normalize(obj.start), _normalize(obj.stop), _normalize(obj.step))


@_rule(range)
def _range(obj: range) -> Any:
    return ("range", obj.start, obj.stop, obj.step)


@_rule(str, int, float, complex, bytes)
def _subclass_of_plain(obj: Any) -> Any:
    # Enumerations, `numpy.str_` and the like: the class is part of what they are.
    import enum

    if isinstance(obj, enum.Enum):
        return _enum(obj)
    base = next(t for t in type(obj).__mro__ if t in _PLAIN)
    state = getattr(obj, "__dict__", None)
    return (_class_name(type(obj)), base(obj), _normalize(state) if state else None)


def _enum(obj: Any) -> Any:
    return ("enum", _class_name(type(obj)), obj.name)


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


@_rule(type(sys))
def _module(obj: Any) -> Any:
    return ("module", obj.__name__)


@_rule(object)
def _object(obj: object) -> Any:
    from rasker import _tokens

    return _tokens.normalize_object(obj)


def _later(package: str) -> None:
    def load() -> None:
        from rasker import _tokens

        _tokens.LOADERS[package]()

    normalize_token.register_lazy(package, load)


for _package in ("numpy", "pandas", "pyarrow", "functools"):
    _later(_package)
