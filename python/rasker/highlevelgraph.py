"""Graphs in layers: each collection adds one layer under its name and shares those below.

Examples
--------
>>> below = HighLevelGraph({"a": {"a": 1}}, {"a": set()})
>>> sorted(HighLevelGraph.merge(below, {"b": (abs, "a")}).to_dict())
['a', 'b']
"""

from __future__ import annotations

from collections.abc import Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

from rasker.core import flatten, keys_in_tasks

__all__ = ["HighLevelGraph", "Layer", "MaterializedLayer"]


class Layer(Mapping):  # type: ignore[type-arg]
    """One named part of a graph: a mapping from keys to tasks, with annotations.

    Parameters
    ----------
    annotations : mapping, optional
        For every task of the layer; see `rasker.annotate`.
    collection_annotations : mapping, optional
        What a collection wants to say about itself, for pictures.
    """

    annotations: Mapping[str, Any] | None
    collection_annotations: Mapping[str, Any] | None

    def __init__(
        self,
        annotations: Mapping[str, Any] | None = None,
        collection_annotations: Mapping[str, Any] | None = None,
    ) -> None:
        if annotations is None:
            from rasker.annotations import get_annotations

            annotations = get_annotations() or None
        self.annotations = annotations
        self.collection_annotations = collection_annotations

    def is_materialized(self) -> bool:
        """True if the tasks exist already, one by one."""
        return True

    def get_output_keys(self) -> Any:
        """The keys that other layers may need."""
        return self.keys()

    def get_dependencies(self, key: Any, all_hlg_keys: Any) -> set[Any]:
        """The keys that a task of the layer needs."""
        return set(keys_in_tasks(all_hlg_keys, [self[key]]))

    def cull(self, keys: set[Any], all_hlg_keys: Any) -> tuple[Layer, Mapping[Any, set[Any]]]:
        """The layer with only what `keys` need, and the dependencies of what is left.

        Parameters
        ----------
        keys : set of key
        all_hlg_keys : container of key
            All keys of the graph.
        """
        kept: dict[Any, Any] = {}
        dependencies: dict[Any, set[Any]] = {}
        stack = [k for k in keys if k in self]
        while stack:
            key = stack.pop()
            if key in kept:
                continue
            kept[key] = self[key]
            dependencies[key] = self.get_dependencies(key, all_hlg_keys)
            stack.extend(d for d in dependencies[key] if d in self)
        return MaterializedLayer(kept, self.annotations), dependencies


class MaterializedLayer(Layer):
    """A layer over a dict of tasks.

    Parameters
    ----------
    mapping : mapping
        Keys to tasks and values.
    annotations, collection_annotations : mapping, optional
        As for `Layer`.
    """

    def __init__(
        self,
        mapping: Mapping[Any, Any],
        annotations: Mapping[str, Any] | None = None,
        collection_annotations: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(annotations, collection_annotations)
        self.mapping = mapping

    def __contains__(self, key: object) -> bool:
        return key in self.mapping

    def __getitem__(self, key: Any) -> Any:
        return self.mapping[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.mapping)

    def __len__(self) -> int:
        return len(self.mapping)

    def keys(self) -> Any:
        return self.mapping.keys()

    def items(self) -> Any:
        return self.mapping.items()

    def __repr__(self) -> str:
        return f"<MaterializedLayer of {len(self)} tasks>"


class HighLevelGraph(Mapping):  # type: ignore[type-arg]
    """A graph whose parts have names and are shared between collections.

    Parameters
    ----------
    layers : mapping of str to mapping
        Each layer's tasks.
    dependencies : mapping of str to set of str
        The layers that each layer needs.
    key_dependencies : mapping, optional
        Dependencies between keys, where they are known already.
    """

    layers: dict[str, Any]
    dependencies: dict[str, set[str]]

    def __init__(
        self,
        layers: Mapping[str, Any],
        dependencies: Mapping[str, set[str]],
        key_dependencies: dict[Any, set[Any]] | None = None,
    ) -> None:
        self.layers = {
            # A layer of another package stays what it is: it knows how to rewrite itself.
            k: v if hasattr(v, "is_materialized") else MaterializedLayer(v)
            for k, v in layers.items()
        }
        self.dependencies = {k: set(v) for k, v in dependencies.items()}
        self.key_dependencies = key_dependencies or {}

    @classmethod
    def from_collections(
        cls, name: str, layer: Mapping[Any, Any], dependencies: Sequence[Any] = ()
    ) -> HighLevelGraph:
        """The graph of a new collection: one layer over those of its inputs.

        Parameters
        ----------
        name : str
            Of the new layer.
        layer : mapping
            Its tasks.
        dependencies : sequence of collection
            The inputs.

        Examples
        --------
        >>> import rasker
        >>> x = rasker.delayed(1, name="one")
        >>> g = HighLevelGraph.from_collections("two", {"two": (abs, "one")}, [x])
        >>> sorted(g)
        ['one', 'two']
        """
        layers: dict[str, Any] = {name: layer}
        deps: dict[str, set[str]] = {name: set()}
        for collection in dependencies:
            graph = collection.__dask_graph__()
            if not hasattr(graph, "layers"):
                key = f"graph-{id(graph)}"
                layers[key], deps[key] = graph, set()
                deps[name].add(key)
                continue
            layers.update(graph.layers)
            deps.update(graph.dependencies)
            names = getattr(collection, "__dask_layers__", None)
            deps[name] |= set(names()) if names is not None else set(graph.layers)
        return cls(layers, deps)

    @classmethod
    def merge(cls, *graphs: Any) -> HighLevelGraph:
        """One graph with all layers of `graphs`; plain dicts become layers."""
        layers: dict[str, Any] = {}
        dependencies: dict[str, set[str]] = {}
        for g in graphs:
            if hasattr(g, "layers"):
                layers.update(g.layers)
                for k, v in g.dependencies.items():
                    dependencies[k] = dependencies.get(k, set()) | set(v)
            else:
                layers[str(id(g))] = g
                dependencies[str(id(g))] = set()
        return cls(layers, dependencies)

    def __getitem__(self, key: Any) -> Any:
        # Most keys say which layer they are of.
        name = key[0] if isinstance(key, tuple) and key else key
        try:
            return self.layers[name][key]
        except (KeyError, TypeError):
            pass
        for layer in self.layers.values():
            if key in layer:
                return layer[key]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return any(key in layer for layer in self.layers.values())

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return sum(len(layer) for layer in self.layers.values())

    def to_dict(self) -> dict[Any, Any]:
        """All tasks in one dict."""
        result: dict[Any, Any] = {}
        for layer in self.layers.values():
            result.update(layer)
        return result

    def keys(self) -> Any:
        return self.to_dict().keys()

    def items(self) -> Any:
        return self.to_dict().items()

    def values(self) -> Any:
        return self.to_dict().values()

    @property
    def dependents(self) -> dict[str, set[str]]:
        """The layers that need each layer."""
        result: dict[str, set[str]] = {k: set() for k in self.layers}
        for k, deps in self.dependencies.items():
            for d in deps:
                result.setdefault(d, set()).add(k)
        return result

    def get_all_external_keys(self) -> set[Any]:
        """The keys of all layers that other layers may need."""
        return {k for layer in self.layers.values() for k in layer.get_output_keys()}

    def get_all_dependencies(self) -> dict[Any, set[Any]]:
        """The keys that each task needs."""
        keys = self.to_dict()
        return {k: set(keys_in_tasks(keys, [v])) for k, v in keys.items()}

    def copy(self) -> HighLevelGraph:
        """A copy that shares the layers."""
        return type(self)(self.layers, self.dependencies, dict(self.key_dependencies))

    def cull(self, keys: Iterable[Any]) -> HighLevelGraph:
        """The graph with only what `keys` need.

        Parameters
        ----------
        keys : key, or nested list of keys
        """
        wanted = set(flatten(keys if isinstance(keys, (list, set, tuple)) else [keys]))
        everything = set(self.to_dict())
        kept: dict[str, Any] = {}
        dependencies: dict[Any, set[Any]] = {}
        done: dict[str, int] = {}
        order = self._toposort_layers()[::-1]
        changed = True
        while changed:  # layers cut by annotation may need each other; one round serves all others
            changed = False
            for name in order:
                layer = self.layers[name]
                mine = {k for k in wanted if k in layer}
                if len(mine) == done.get(name, 0):
                    continue
                done[name] = len(mine)
                changed = True
                kept[name], deps = layer.cull(mine, everything)
                dependencies.update(deps)
                for d in deps.values():
                    wanted |= d
        return type(self)(
            kept,
            {k: {d for d in self.dependencies.get(k, ()) if d in kept} for k in kept},
            dependencies,
        )

    def cull_layers(self, layers: Iterable[str]) -> HighLevelGraph:
        """The graph with only `layers` and what they need."""
        kept: set[str] = set()
        stack = list(layers)
        while stack:
            name = stack.pop()
            if name not in kept:
                kept.add(name)
                stack.extend(self.dependencies.get(name, ()))
        return type(self)(
            {k: v for k, v in self.layers.items() if k in kept},
            {k: set(self.dependencies.get(k, ())) for k in self.layers if k in kept},
        )

    def _toposort_layers(self) -> list[str]:
        from rasker.core import _walk

        deps = {
            k: [d for d in self.dependencies.get(k, ()) if d in self.layers] for k in self.layers
        }
        order, cycle = _walk(deps, deps)
        if cycle:
            # Layers cut by annotation may need each other; then the keys decide, not the layers.
            return [*order, *[k for k in self.layers if k not in set(order)]]
        return order

    def validate(self) -> None:
        """Raise ValueError if a layer needs one that is not there."""
        for name, deps in self.dependencies.items():
            for d in deps:
                if d not in self.layers:
                    raise ValueError(f"layer {name!r} needs layer {d!r}, which is not in the graph")

    def visualize(self, filename: str | None = "dask-hlg", **kwargs: Any) -> Any:
        """Draw the layers; keywords as for `rasker.visualize`."""
        from rasker import dot

        dsk = {k: (len, *self.dependencies.get(k, ())) for k in self.layers}
        return dot.draw(dsk, filename=filename, **kwargs)

    def __repr__(self) -> str:
        lines = [f"HighLevelGraph with {len(self.layers)} layers."]
        lines += [
            f" {i}. {name}: {len(v)} tasks" for i, (name, v) in enumerate(self.layers.items())
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(repr(self))}</pre>"
