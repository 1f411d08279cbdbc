"""Futures in graphs of Dask's collections, kept out of the way of Dask's optimizers.

After `persist` with a client of ours the graph of a Dask collection has futures as values.  Dask
takes them for data and may bury one inside a joined task, where the engine does not look.  So
before an optimizer of Dask runs each future becomes an alias of a key outside of the graph, and
that key is given back afterwards.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def hide_futures(graph: Any) -> tuple[Any, dict[Any, Any]]:
    """A graph without futures, and the futures under the keys that now stand for them.

    Parameters
    ----------
    graph : mapping
        With layers or without.

    Returns
    -------
    graph : mapping
        The same object where there was nothing to hide.
    held : dict of key to Future
    """
    module = sys.modules.get("rasker.distributed.future")
    spec = sys.modules.get("dask._task_spec")
    if module is None or spec is None:
        return graph, {}
    held: dict[Any, Any] = {}

    def hidden(mapping: Any) -> Any:
        if not any([isinstance(v, module.Future) for v in mapping.values()]):
            return mapping
        result = dict(mapping)
        for key, value in mapping.items():
            if isinstance(value, module.Future):
                outside = ("held", key)
                held[outside] = value
                result[key] = spec.Alias(key, outside)
        return result

    layers = getattr(graph, "layers", None)
    if layers is None:
        return hidden(graph), held
    changed = {}
    for name, layer in layers.items():
        # Symbolic layers make their tasks when asked, and hold no futures.
        mapping = getattr(layer, "mapping", None)
        found = hidden(mapping) if mapping is not None else mapping
        if found is mapping:
            changed[name] = layer
        else:
            changed[name] = type(layer)(found, annotations=layer.annotations)
    return (type(graph)(changed, graph.dependencies) if held else graph), held
