"""`delayed`: a call of any function as a lazy value.

A `Delayed` records one call: its key, function and arguments, in which other `Delayed` objects may
stand.  Nothing is merged when calls are made; the records are walked once, when something is
computed.

Examples
--------
>>> @delayed
... def add(x, y):
...     return x + y
>>> total = add(add(1, 2), 3)
>>> total.compute(scheduler="sync")
6
"""

from __future__ import annotations

import operator
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

from rasker.annotations import current as _annotations
from rasker.typing import no_default
from rasker.unique_names import names, unique

__all__ = ["Delayed", "DelayedAttr", "DelayedLeaf", "delayed", "optimize", "single_key"]


def _identity(x: Any) -> Any:
    return x


def single_key(seq: Any) -> Any:
    """The only item of a sequence."""
    return seq[0]


def _pure_by_default() -> bool:
    config = sys.modules.get("rasker.config")
    if config is None:
        return False  # nobody has asked for the configuration, and the default is False
    return bool(config.get("delayed.pure", None))


class Nested:
    """A container among arguments that holds `Delayed` objects, at any depth."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __dask_tokenize__(self) -> Any:
        return self.value


_SIMPLE = frozenset((str, int, float, bool, bytes, complex, type(None), range))


def _argument(x: Any) -> Any:
    """An argument as it is recorded: itself, a `Delayed`, or `Nested`."""
    cls = type(x)
    if cls in _SIMPLE or isinstance(x, Delayed) or cls is Nested:
        return x
    if cls in (list, tuple, set, frozenset):
        items = [_argument(i) for i in x]
        return Nested(cls(items)) if any(map(_is_lazy, items)) else x
    if cls is dict:
        values = {k: _argument(v) for k, v in x.items()}
        if any([_is_lazy(_argument(k)) for k in x]):
            return _call(dict, ([_argument(pair) for pair in x.items()],))
        return Nested(values) if any(map(_is_lazy, values.values())) else x
    if cls in _LEAF_TYPES:
        return x
    from rasker.delayed_arguments import rare_argument

    return rare_argument(x, cls)


def _is_lazy(x: Any) -> bool:
    return isinstance(x, (Delayed, Nested))


_LEAF_TYPES: set[type] = {type(_identity), type(len), type}


def _call(func: Callable[..., Any], args: Iterable[Any]) -> Delayed:
    """A call whose arguments may be any."""
    recorded = tuple([_argument(a) for a in args])
    name = getattr(func, "__name__", "call")
    made: Delayed = _new(Delayed, (unique(name), func, recorded, None, None, _annotations.get()))
    return made


class Delayed:
    """A lazy value: the result of a call that has not been made.

    Attributes, items, calls and operators of it are lazy too.  `delayed` makes these objects; the
    constructor is for graphs.

    Parameters
    ----------
    key : str
        The name of the value.
    dsk : mapping
        A graph that has `key`.
    length : int, optional
        How many items the value has, for iteration.
    layer : str, optional
        Has no meaning here.

    Examples
    --------
    >>> x = delayed([3, 1, 2])
    >>> (x[0] + x.index(2)).compute(scheduler="sync")
    5
    """

    # One slot with a tuple: (key, func, args, kwargs, length, annotations).  Making it costs less
    # than filling six slots, and the objects are immutable.  For a value of a graph func is None
    # and args is the graph.
    __slots__ = ("_record", "__weakref__")

    _record: tuple[Any, ...]

    def __init__(
        self, key: Any, dsk: Mapping[Any, Any], length: int | None = None, layer: Any = None
    ) -> None:
        if hasattr(dsk, "__len__") and key not in dsk:
            raise ValueError(f"key {key!r} not found in the graph given with it")
        _set_record(self, (key, None, dsk, None, length, None))

    @property
    def key(self) -> Any:
        """The name of the value."""
        return self._record[0]

    @property
    def _key(self) -> Any:
        return self._record[0]

    @property
    def _length(self) -> Any:
        return self._record[4]

    @property
    def dask(self) -> Any:
        """The graph: a `rasker.highlevelgraph.HighLevelGraph`."""
        from rasker.delayed_graph import export

        return export(self)

    def __dask_graph__(self) -> Any:
        return self.dask

    def __dask_keys__(self) -> list[Any]:
        return [self._record[0]]

    def __dask_layers__(self) -> tuple[Any, ...]:
        from rasker.delayed_graph import layer_name

        return (layer_name(self),)

    def __dask_tokenize__(self) -> Any:
        return self._record[0]

    @staticmethod
    def __dask_scheduler__(dsk: Any, keys: Any, **kwargs: Any) -> Any:
        from rasker.threaded import get

        return get(dsk, keys, **kwargs)

    @staticmethod
    def __dask_optimize__(dsk: Any, keys: Any, **kwargs: Any) -> Any:
        return dsk

    def __dask_postcompute__(self) -> tuple[Any, tuple[Any, ...]]:
        return single_key, ()

    def __dask_postpersist__(self) -> tuple[Any, tuple[Any, ...]]:
        return _rebuild, (self._record[0], self._record[4])

    def compute(self, **kwargs: Any) -> Any:
        """Compute the value; keywords as for `rasker.compute`."""
        from rasker.base import compute

        return compute(self, traverse=False, **kwargs)[0]

    def persist(self, **kwargs: Any) -> Delayed:
        """Compute the value and keep it lazy; keywords as for `rasker.persist`."""
        from rasker.base import persist

        return persist(self, traverse=False, **kwargs)[0]  # type: ignore[no-any-return]

    def visualize(self, filename: str | None = "mydask", **kwargs: Any) -> Any:
        """Draw the graph; keywords as for `rasker.visualize`."""
        from rasker.base import visualize

        return visualize(self, filename=filename, **kwargs)

    def __repr__(self) -> str:
        return f"Delayed({self._record[0]!r})"

    def __hash__(self) -> int:
        return hash(self._record[0])

    def __dir__(self) -> list[str]:
        return [n for n in dir(type(self)) if not n.startswith("_Delayed")]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(
                f"a Delayed has no attribute {name!r}, and private ones are not lazy"
            )
        return DelayedAttr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise TypeError("Delayed objects are immutable; make a task that changes the value")

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError("Delayed objects are immutable; make a task that changes the value")

    def __len__(self) -> int:
        if self._record[4] is None:
            raise TypeError("a Delayed has no length; give nout= to delayed")
        return self._record[4]  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[Delayed]:
        if self._record[4] is None:
            raise TypeError(
                "a Delayed of no known length cannot be iterated; give nout= to delayed"
            )
        for i in range(self._record[4]):
            yield self[i]  # type: ignore[index]

    def __bool__(self) -> bool:
        raise TypeError("the truth of a Delayed is not known before it is computed")

    def __call__(
        self, *args: Any, pure: bool | None = None, dask_key_name: Any = None, **kwargs: Any
    ) -> Delayed:
        key = dask_key_name or _key_of("apply", pure, (self, *args), kwargs)
        return _record_call(key, _apply, (self, *args), kwargs, None)

    def __get__(self, instance: Any, cls: type) -> Any:
        if instance is None:
            return self
        from types import MethodType

        return MethodType(self, instance)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (self._record[0], dict(self.dask), self._record[4]))

    def __deepcopy__(self, memo: Any) -> Delayed:
        return self

    def __copy__(self) -> Delayed:
        return self


_new_object = object.__new__
_set_record = Delayed.__dict__["_record"].__set__


def _new(cls: type, record: tuple[Any, ...]) -> Any:
    made: Any = _new_object(cls)
    _set_record(made, record)
    return made


def _apply(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return func(*args, **kwargs)


def _restore(key: Any, dsk: Mapping[Any, Any], length: int | None) -> Delayed:
    return Delayed(key, dsk, length)


def _rebuild(
    dsk: Mapping[Any, Any], key: Any, length: int | None, rename: Mapping[str, str] | None = None
) -> Delayed:
    from rasker.base import replace_name_in_key

    return Delayed(replace_name_in_key(key, rename) if rename else key, dsk, length)


def _key_of(name: str, pure: bool | None, args: Any, kwargs: Any) -> str:
    if pure is None:
        pure = _pure_by_default()
    if not pure:
        return unique(name)
    from rasker.tokenize import tokenize

    return f"{name}-{tokenize(name, *args, **kwargs)}"


def _record_call(
    key: Any, func: Callable[..., Any], args: Any, kwargs: Any, length: int | None
) -> Delayed:
    recorded = tuple([_argument(a) for a in args])
    if kwargs:
        kwargs = {k: _argument(v) for k, v in kwargs.items()}
    record = (key, func, recorded, kwargs or None, length, _annotations.get())
    made: Delayed = _new(Delayed, record)
    return made


class DelayedLeaf(Delayed):
    """A function or object that `delayed` has wrapped."""

    __slots__ = ("_obj", "_pure", "_nout", "_name", "__dict__")

    def __init__(self, obj: Any, key: Any, pure: bool | None = None, nout: int | None = None):
        from rasker.utils import funcname

        put = object.__setattr__
        _set_record(self, (key, _identity, (obj,), None, nout, _annotations.get()))
        put(self, "_obj", obj)
        put(self, "_pure", pure)
        put(self, "_nout", nout)
        put(self, "_name", funcname(obj) if callable(obj) else type(obj).__name__)
        for name in ("__doc__", "__name__", "__qualname__", "__module__", "__wrapped__"):
            value = obj if name == "__wrapped__" else getattr(obj, name, None)
            if value is not None:
                try:
                    self.__dict__[name] = value
                except TypeError:
                    pass

    def __call__(
        self, *args: Any, pure: bool | None = None, dask_key_name: Any = None, **kwargs: Any
    ) -> Delayed:
        if pure is None:
            pure = self._pure
        if dask_key_name is not None:
            key = dask_key_name
        elif pure or (pure is None and _pure_by_default()):
            key = _key_of(self._name, True, (self._record[0], *args), kwargs)
        else:
            key = f"{self._name}-{names.prefix}{names.next():08x}"
        for a in args:
            cls = type(a)
            if cls not in _SIMPLE and cls not in _DELAYED:
                args = tuple([_argument(x) for x in args])
                break
        if kwargs:
            kwargs = {k: _argument(v) for k, v in kwargs.items()}
        made: Delayed = _new_object(Delayed)
        _set_record(made, (key, self._obj, args, kwargs or None, self._nout, _annotations.get()))
        return made


class DelayedAttr(Delayed):
    """An attribute of a lazy value; calling it is a lazy call of a method."""

    __slots__ = ("_obj", "_attr")

    def __init__(self, obj: Delayed, attr: str) -> None:
        from rasker.tokenize import tokenize

        key = f"getattr-{tokenize(obj._record[0], attr)}"
        _set_record(self, (key, getattr, (obj, attr), None, None, _annotations.get()))
        object.__setattr__(self, "_obj", obj)
        object.__setattr__(self, "_attr", attr)

    def __getattr__(self, name: str) -> Any:
        # The dtype of a lazy dtype would recurse for ever in code that tries attributes.
        if name == "dtype" and self._attr == "dtype":
            raise AttributeError("attribute 'dtype' not found")
        return super().__getattr__(name)

    def __call__(
        self, *args: Any, pure: bool | None = None, dask_key_name: Any = None, **kwargs: Any
    ) -> Delayed:
        key = dask_key_name or _key_of(self._attr, pure, (self._obj, *args), kwargs)
        return _record_call(key, _method(self._attr), (self._obj, *args), kwargs, None)


_DELAYED = frozenset((Delayed, DelayedLeaf, DelayedAttr))
_methods: dict[str, Any] = {}


def _method(name: str) -> Any:
    # One object per name, so that the engine knows all calls of a method for one template.
    found = _methods.get(name)
    if found is None:
        from rasker.utils import methodcaller

        found = _methods[name] = methodcaller(name)
    return found


def _bind(name: str, func: Callable[..., Any], swapped: bool = False) -> None:
    def method(self: Any, *others: Any) -> Delayed:
        args = (*others, self) if swapped else (self, *others)
        return _record_call(_key_of(shown, True, args, {}), func, args, None, None)

    shown = func.__name__.strip("_")
    method.__name__ = name
    setattr(Delayed, name, method)


for _name in ("abs", "neg", "pos", "invert", "eq", "ne", "lt", "le", "gt", "ge", "getitem"):
    _bind(f"__{_name}__", getattr(operator, _name))
for _name in ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "lshift",
              "rshift", "and", "or", "xor"):  # fmt: skip
    _op = getattr(operator, f"__{_name}__")
    _bind(f"__{_name}__", _op)
    _bind(f"__r{_name}__", _op, swapped=True)
_bind("__divmod__", divmod)
_bind("__rdivmod__", divmod, swapped=True)


def delayed(
    obj: Any = no_default,
    name: str | None = None,
    pure: bool | None = None,
    nout: int | None = None,
    traverse: bool = True,
) -> Any:
    """Make a function lazy, or wrap an object as a lazy value; also a decorator.

    Parameters
    ----------
    obj : object
        A function, whose calls become tasks; or any object.
    name : str, optional
        The key of the object.
    pure : bool, optional
        Equal arguments give equal keys, and so share one task.  Default: the configuration key
        ``delayed.pure``, else False.
    nout : int, optional
        How many items a call returns, so that the result can be unpacked.
    traverse : bool, default True
        Look for collections inside `obj` if it is a container.

    Returns
    -------
    Delayed
        Lazy.

    Raises
    ------
    ValueError
        When called, if `nout` is not an int of 0 or more.

    Examples
    --------
    >>> inc = delayed(lambda x: x + 1)
    >>> inc(1).compute(scheduler="sync")
    2
    >>> @delayed(nout=2)
    ... def halves(x):
    ...     return x // 2, x - x // 2
    >>> a, b = halves(5)
    >>> (b - a).compute(scheduler="sync")
    1
    """
    if obj is no_default:
        from functools import partial

        return partial(delayed, name=name, pure=pure, nout=nout, traverse=traverse)
    if nout is not None and (type(nout) is not int or nout < 0):
        raise ValueError(f"nout must be an int of 0 or more, not {nout!r}")
    if isinstance(obj, Delayed):
        return obj
    from rasker.traversal import is_dask_collection

    found = _argument(obj) if traverse or is_dask_collection(obj) else obj
    if _is_lazy(found):
        if isinstance(found, Delayed) and name is None:
            return found
        key = name or unique(type(obj).__name__)
        return _record_call(key, _identity, (found,), None, nout)
    if name is None:
        kind = type(obj).__name__
        pure_here = _pure_by_default() if pure is None else pure
        if pure_here:
            from rasker.tokenize import tokenize

            name = f"{kind}-{tokenize(obj, nout)}"
        else:
            name = unique(kind)
    return DelayedLeaf(obj, name, pure=pure, nout=nout)


def optimize(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """What `Delayed` does to its graph before it runs: nothing; the engine culls and fuses."""
    return dsk
