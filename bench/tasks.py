"""The functions that run as tasks.

They stand at the top of an importable module, so that every peer can send them by name, which is
the cheapest way each of them has.
"""

from __future__ import annotations

import time
from typing import Any


def inc(x: int) -> int:
    return x + 1


def add(a: Any, b: Any) -> Any:
    return a + b


def spin(seconds: float) -> float:
    """Keep a core busy for `seconds`; return how long it really was."""
    started = time.perf_counter()
    while (now := time.perf_counter()) - started < seconds:
        pass
    return now - started


def ones(nbytes: int, fill: float) -> Any:
    import numpy as np

    return np.full(nbytes // 8, fill)


def ends(x: Any) -> float:
    """Touch both ends of an array."""
    return float(x[0]) + float(x[-1]) + float(x.size)


def array_make(i: int) -> Any:
    import numpy as np

    return np.random.default_rng(i).standard_normal(1_000_000)


def array_work(x: Any) -> Any:
    import numpy as np

    return np.tanh(x) + np.sqrt(np.abs(x))


def array_join(a: Any, b: Any) -> Any:
    import numpy as np

    return np.logaddexp(a, b)


def array_smooth(left: Any, middle: Any, right: Any) -> Any:
    import numpy as np

    width = 500
    whole = np.concatenate([left[-width:], middle, right[:width]])
    sums = np.cumsum(np.concatenate([[0.0], whole]))
    return (sums[2 * width :] - sums[: -2 * width])[: middle.size] / (2 * width)


def array_total(x: Any) -> float:
    return float(abs(x).sum())


def frame_make(i: int) -> Any:
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(i)
    n = 250_000
    keys = rng.integers(0, 50_000, n)
    return pd.DataFrame({"key": keys, "x": rng.standard_normal(n), "y": rng.random(n)})


def frame_work(frame: Any) -> Any:
    sums = frame.groupby("key")[["x", "y"]].transform("sum")
    return frame.assign(x=sums["x"], y=frame["y"] * sums["y"])


def frame_join(a: Any, b: Any) -> Any:
    import pandas as pd

    return pd.concat([a, b]).groupby("key", as_index=False).sum()


def frame_smooth(left: Any, middle: Any, right: Any) -> Any:
    import pandas as pd

    whole = pd.concat([left.tail(10), middle, right.head(10)])
    means = whole[["x", "y"]].rolling(21, center=True).mean().iloc[10:-10]
    return middle.assign(x=means["x"].to_numpy(), y=means["y"].to_numpy())


def frame_total(frame: Any) -> float:
    return float(frame["x"].abs().sum() + frame["y"].sum())
