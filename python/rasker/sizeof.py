"""`sizeof`: about how much memory an object takes, bytes."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

from rasker.dispatch import Dispatch

# Long containers are judged by as many of their items as these.
_SAMPLE = 10


class _Sizeof(Dispatch):
    def __call__(self, arg: Any, *args: Any, **kwargs: Any) -> int:
        try:
            return int(super().__call__(arg, *args, **kwargs))
        except Exception:
            # An estimate must never stop the work; a type that cannot be measured counts a little.
            return 1_000_000


sizeof = _Sizeof("sizeof")


@sizeof.register(object)
def _object(o: Any) -> int:
    return sys.getsizeof(o)


@sizeof.register((bytes, bytearray))
def _bytes(o: Any) -> int:
    return len(o)


@sizeof.register(memoryview)
def _memoryview(o: memoryview) -> int:
    return o.nbytes


def _sampled(items: Any, n: int) -> int:
    from itertools import islice
    from random import Random

    if n <= _SAMPLE:
        return sum(map(sizeof, items))
    if isinstance(items, (list, tuple)):
        # A fixed seed: the same object has the same size each time.
        chosen = Random(n).sample(items, _SAMPLE)
    else:
        chosen = list(islice(items, _SAMPLE))
    return int(n / _SAMPLE * sum(map(sizeof, chosen)))


@sizeof.register((list, tuple, set, frozenset))
def _collection(o: Any) -> int:
    return sys.getsizeof(o) + _sampled(o, len(o))


@sizeof.register(dict)
def _dict(o: dict[Any, Any]) -> int:
    return sys.getsizeof(o) + _sampled(list(o), len(o)) + _sampled(list(o.values()), len(o))


@sizeof.register_lazy("numpy")
def _load_numpy() -> None:
    import numpy as np

    @sizeof.register(np.ndarray)
    def array(x: Any) -> int:
        if x.dtype.hasobject:
            return int(x.nbytes) + _sampled(x.ravel().tolist(), x.size)
        # A broadcast array repeats memory that it does not have.
        n = x.dtype.itemsize
        for length, stride in zip(x.shape, x.strides, strict=True):
            n *= length if stride else min(length, 1)
        return int(n)


@sizeof.register_lazy("pandas")
def _load_pandas() -> None:
    import pandas as pd

    @sizeof.register(pd.DataFrame)
    def frame(df: Any) -> int:
        columns = sum(sizeof(df.iloc[:, i].array) for i in range(df.shape[1]))
        return columns + sizeof(df.index) + 1000

    @sizeof.register(pd.Series)
    def series(s: Any) -> int:
        return sizeof(s.array) + sizeof(s.index) + 1000

    @sizeof.register(pd.Index)
    def index(i: Any) -> int:
        return 128 if isinstance(i, pd.RangeIndex) else int(i.memory_usage(deep=False)) + 1000

    @sizeof.register(pd.api.extensions.ExtensionArray)
    def extension(a: Any) -> int:
        values = getattr(a, "_ndarray", None)
        return sizeof(values) if values is not None else int(a.nbytes)


@sizeof.register_lazy("pyarrow")
def _load_pyarrow() -> None:
    import pyarrow as pa

    @sizeof.register((pa.Table, pa.RecordBatch, pa.Array, pa.ChunkedArray))
    def arrow(x: Any) -> int:
        return int(x.get_total_buffer_size())
