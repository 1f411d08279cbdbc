"""Rules of `rasker.tokenize` for functions, classes, any object, and the packages of the field."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any

from rasker.tokenize import (
    TokenizationError,
    _enum,
    _normalize,
    finished,
    hash_buffer,
    nondeterministic,
    normalize_token,
)


def normalize_object(obj: object) -> Any:
    """The structure for an object whose type has no rule."""
    import dataclasses
    import enum

    if isinstance(obj, type):
        return _class(obj)
    rule = _BY_TYPE.get(type(obj))
    if rule is not None:
        return rule(obj)
    if isinstance(obj, enum.Enum):
        return _enum(obj)
    if dataclasses.is_dataclass(obj):
        fields = [
            (f.name, _normalize(getattr(obj, f.name, "<unset>"))) for f in dataclasses.fields(obj)
        ]
        extra = getattr(obj, "__dict__", {})
        names = {f.name for f in dataclasses.fields(obj)}
        more = [(k, _normalize(v)) for k, v in sorted(extra.items()) if k not in names]
        return ("dataclass", _normalize(type(obj)), tuple(fields), tuple(more))
    if type(obj) is object:
        return nondeterministic(obj, "it has no state")
    return _by_reduction(obj)


def _by_reduction(obj: object) -> Any:
    # What pickle would write says everything that matters about an object.
    try:
        import copyreg

        reducer = copyreg.dispatch_table.get(type(obj))
        reduced = reducer(obj) if reducer else obj.__reduce_ex__(4)
    except TokenizationError:
        raise
    except Exception as error:
        return nondeterministic(obj, f"{type(error).__name__}: {error}")
    if isinstance(reduced, str):
        return ("global", type(obj).__module__, reduced)
    func, args, *rest = reduced
    state = rest[0] if rest else None
    items = list(rest[1]) if len(rest) > 1 and rest[1] is not None else None
    pairs = list(rest[2]) if len(rest) > 2 and rest[2] is not None else None
    if not state and not items and not pairs and func is getattr(copyreg, "__newobj__", None):
        if len(args) == 1 and getattr(args[0], "__getstate__", None) is object.__getstate__:
            if not getattr(args[0], "__slots__", ()) and not getattr(obj, "__dict__", True):
                return ("object", _normalize(args[0]))
    return ("object", _normalize(func), _normalize(tuple(args)), _normalize(state),
            _normalize(items), _normalize(pairs))  # fmt: skip


def _importable(obj: Any) -> bool:
    module = getattr(obj, "__module__", None)
    name = getattr(obj, "__qualname__", None)
    if module is None or name is None or module == "__main__" or "<" in name:
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is obj


def _function(func: types.FunctionType) -> Any:
    if _importable(func):
        return ("function", func.__module__, func.__qualname__)
    cells = []
    for cell in func.__closure__ or ():
        try:
            cells.append(_normalize(cell.cell_contents))
        except ValueError:
            cells.append("<empty>")
    names = sorted(_global_names(func.__code__))
    used = [(n, _normalize(func.__globals__[n])) for n in names if n in func.__globals__]
    return ("function", func.__name__, _code(func.__code__), _normalize(func.__defaults__),
            _normalize(func.__kwdefaults__), tuple(cells), tuple(used))  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _global_names(code: types.CodeType) -> frozenset[str]:
    import dis

    # `co_names` also holds the names of attributes, which have nothing to do with globals.
    loads = ("LOAD_GLOBAL", "LOAD_NAME")
    names = {i.argval for i in dis.get_instructions(code) if i.opname in loads}
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names |= _global_names(const)
    return frozenset(names)


def _code(code: types.CodeType) -> Any:
    consts = tuple(
        [_code(c) if isinstance(c, types.CodeType) else _normalize(c) for c in code.co_consts]
    )
    return ("code", code.co_code, consts, code.co_names, code.co_varnames, code.co_freevars,
            code.co_cellvars, code.co_argcount, code.co_kwonlyargcount,
            code.co_posonlyargcount, code.co_flags)  # fmt: skip


def _class(cls: type) -> Any:
    if _importable(cls) or cls.__module__ == "builtins":
        return ("class", cls.__module__, cls.__qualname__)
    skipped = ("__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__")
    content = tuple(
        [
            (k, _normalize(v))
            for k, v in sorted(vars(cls).items())
            if k not in skipped and not isinstance(v, _DESCRIPTORS)
        ]
    )
    return ("class", cls.__qualname__, tuple([_normalize(b) for b in cls.__bases__]), content)


_DESCRIPTORS = (types.GetSetDescriptorType, types.MemberDescriptorType)


def _builtin(func: Any) -> Any:
    owner = getattr(func, "__self__", None)
    if owner is None or isinstance(owner, types.ModuleType):
        return ("builtin", getattr(func, "__module__", None), func.__qualname__)
    return ("method", func.__name__, _normalize(owner))


def _method(method: types.MethodType) -> Any:
    return ("method", method.__func__.__qualname__, _normalize(method.__func__),
            _normalize(method.__self__))  # fmt: skip


def _wrapper(func: Any) -> Any:
    owner = getattr(func, "__objclass__", None)
    return ("descriptor", func.__name__, _normalize(owner))


@finished
def _partial(func: Any) -> Any:
    return ("partial", _normalize(func.func), _normalize(func.args), _normalize(func.keywords))


def _property(obj: property) -> Any:
    return ("property", _normalize(obj.fget), _normalize(obj.fset), _normalize(obj.fdel))


def _classmethod(obj: Any) -> Any:
    return (type(obj).__name__, _normalize(obj.__func__))


_BY_TYPE: dict[type, Callable[[Any], Any]] = {
    types.FunctionType: _function,
    types.BuiltinFunctionType: _builtin,
    types.MethodType: _method,
    types.CodeType: _code,
    types.MappingProxyType: lambda o: ("mappingproxy", _normalize(dict(o))),
    types.MethodWrapperType: _builtin,
    types.WrapperDescriptorType: _wrapper,
    types.MethodDescriptorType: _wrapper,
    types.ClassMethodDescriptorType: _wrapper,
    property: _property,
    classmethod: _classmethod,
    staticmethod: _classmethod,
    functools.partial: _partial,
}


def _load_functools() -> None:
    normalize_token.register(functools.partial, _partial)


def _load_numpy() -> None:
    import numpy as np

    @finished
    def array(x: Any) -> Any:
        name = "ndarray"
        if isinstance(x, np.memmap) and x.filename is not None and x.base is not None:
            import os

            stat = os.stat(x.filename)
            start = x.__array_interface__["data"][0] - _mapping_start(x)
            return ("memmap", str(x.filename), stat.st_mtime_ns, stat.st_size, start,
                    _dtype(x.dtype), x.shape, x.strides)  # fmt: skip
        if type(x) is not np.ndarray:
            return _by_reduction(x)
        if x.dtype.hasobject:
            data = tuple([_normalize(v) for v in x.ravel().tolist()])
            return (name, _dtype(x.dtype), x.shape, data)
        flat = np.ascontiguousarray(x)
        # A view as bytes also serves dtypes that the buffer protocol does not know (dates).
        raw = flat.reshape(-1).view(np.uint8) if flat.size and flat.itemsize else b""
        return (name, _dtype(x.dtype), x.shape, hash_buffer(raw))

    @finished
    def scalar(x: Any) -> Any:
        if x.dtype.hasobject:
            return ("scalar", _dtype(x.dtype), _normalize(x.item()))
        return ("scalar", _dtype(x.dtype), x.tobytes())

    @finished
    def ufunc(x: Any) -> Any:
        name = getattr(x, "__name__", "")
        if getattr(np, name, None) is x:
            return ("ufunc", name)
        return _by_reduction(x)

    normalize_token.register(np.ndarray, array)
    normalize_token.register(np.generic, scalar)
    normalize_token.register(np.ufunc, ufunc)
    normalize_token.register(np.dtype, finished(_dtype))


def _mapping_start(x: Any) -> int:
    base = x
    while isinstance(getattr(base, "base", None), type(x)):
        base = base.base
    return int(base.__array_interface__["data"][0]) - int(getattr(base, "offset", 0) or 0)


def _dtype(dtype: Any) -> Any:
    return ("dtype", dtype.str, repr(dtype.descr) if dtype.names else str(dtype))


def _load_pandas() -> None:
    import pandas as pd

    @finished
    def index(x: Any) -> Any:
        if isinstance(x, pd.RangeIndex):
            return ("RangeIndex", x.start, x.stop, x.step, _normalize(x.name))
        if isinstance(x, pd.MultiIndex):
            levels = tuple([_normalize(level) for level in x.levels])
            return ("MultiIndex", levels, tuple([_normalize(c) for c in x.codes]),
                    _normalize(list(x.names)))  # fmt: skip
        return (type(x).__name__, _normalize(x.name), _normalize(x.array),
                _normalize(getattr(x, "freqstr", None)))  # fmt: skip

    @finished
    def series(x: Any) -> Any:
        return ("Series", _normalize(x.name), _normalize(x.array), _normalize(x.index))

    @finished
    def frame(x: Any) -> Any:
        columns = tuple([_normalize(x.iloc[:, i].array) for i in range(x.shape[1])])
        return ("DataFrame", columns, _normalize(x.columns), _normalize(x.index))

    @finished
    def categorical(x: Any) -> Any:
        return ("Categorical", _normalize(x.codes), _normalize(x.dtype))

    @finished
    def extension(x: Any) -> Any:
        name = type(x).__name__
        arrow = getattr(x, "__arrow_array__", None)
        if hasattr(x, "_pa_array"):
            return (name, str(x.dtype), _normalize(x._pa_array))
        if hasattr(x, "_mask"):
            return (name, _normalize(x._data), _normalize(x._mask))
        if hasattr(x, "asi8"):
            return (name, str(x.dtype), _normalize(x.asi8))
        if type(x).__module__.startswith("pandas.") and arrow is None:
            return (name, str(x.dtype), _normalize(x.to_numpy()))
        return (name, str(x.dtype), _by_reduction(x))

    @finished
    def dtype(x: Any) -> Any:
        if isinstance(x, pd.CategoricalDtype):
            return ("CategoricalDtype", _normalize(x.categories), x.ordered)
        return ("extension dtype", type(x).__name__, str(x))

    normalize_token.register(pd.Index, index)
    normalize_token.register(pd.Series, series)
    normalize_token.register(pd.DataFrame, frame)
    normalize_token.register(pd.Categorical, categorical)
    normalize_token.register(pd.api.extensions.ExtensionArray, extension)
    normalize_token.register(pd.api.extensions.ExtensionDtype, dtype)


def _load_pyarrow() -> None:
    import pyarrow as pa

    def table(x: Any) -> Any:
        # The IPC stream holds only what a slice shows; buffers hold all that was sliced from.
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, x.schema) as writer:
            if isinstance(x, pa.Table):
                x = x.combine_chunks()
            writer.write(x)
        return (type(x).__name__, hash_buffer(sink.getvalue()))

    @finished
    def array(x: Any) -> Any:
        chunked = x if isinstance(x, pa.ChunkedArray) else pa.chunked_array([x])
        return (type(x).__name__, table(pa.table({"": chunked})))

    @finished
    def schema(x: Any) -> Any:
        return ("schema", x.serialize().to_pybytes())

    @finished
    def data_type(x: Any) -> Any:
        return ("data type", pa.schema([pa.field("", x)]).serialize().to_pybytes())

    @finished
    def buffer(x: Any) -> Any:
        return ("buffer", hash_buffer(x))

    @finished
    def scalar(x: Any) -> Any:
        return ("scalar", data_type(x.type), _normalize(x.as_py()))

    finished(table)
    for cls, rule in (
        (pa.Table, table),
        (pa.RecordBatch, table),
        (pa.Array, array),
        (pa.ChunkedArray, array),
        (pa.Schema, schema),
        (pa.DataType, data_type),
        (pa.Buffer, buffer),
        (pa.Scalar, scalar),
    ):
        normalize_token.register(cls, rule)


LOADERS: dict[str, Callable[[], None]] = {
    "functools": _load_functools,
    "numpy": _load_numpy,
    "pandas": _load_pandas,
    "pyarrow": _load_pyarrow,
}
