"""The protocols behind `rasker.typing`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, Union, runtime_checkable

CollType = TypeVar("CollType", bound="DaskCollection")
CollType_co = TypeVar("CollType_co", bound="DaskCollection", covariant=True)

Key: TypeAlias = Union[str, bytes, int, float, tuple["Key", ...]]
Graph: TypeAlias = Mapping[Key, Any]
NestedKeys: TypeAlias = list[Union[Key, "NestedKeys"]]


class SchedulerGetCallable(Protocol):
    """A scheduler as a function: a graph and keys in, values out."""

    def __call__(self, dsk: Graph, keys: Sequence[Key] | Key, **kwargs: Any) -> Any:
        """Run what `keys` need and return their values in the same nesting."""


class PostComputeCallable(Protocol):
    """Makes the final value of a collection from the values of its keys."""

    def __call__(self, parts: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        """Put the parts together."""


class PostPersistCallable(Protocol[CollType_co]):
    """Makes a collection over a graph of values that are already computed."""

    def __call__(
        self, dsk: Graph, *args: Any, rename: Mapping[str, str] | None = None
    ) -> CollType_co:
        """Build the collection; `rename` replaces names in its keys."""


@runtime_checkable
class DaskCollection(Protocol):
    """What an object needs for `compute`, `persist` and their companions to work on it."""

    __dask_optimize__: Any
    __dask_scheduler__: Any

    def __dask_graph__(self) -> Graph: ...
    def __dask_keys__(self) -> NestedKeys: ...
    def __dask_postcompute__(self) -> tuple[PostComputeCallable, tuple[Any, ...]]: ...
    def __dask_postpersist__(self) -> tuple[PostPersistCallable[Any], tuple[Any, ...]]: ...
    def __dask_tokenize__(self) -> Hashable: ...
    def compute(self, **kwargs: Any) -> Any: ...
    def persist(self: CollType, **kwargs: Any) -> CollType: ...
    def visualize(self, filename: str = ..., **kwargs: Any) -> Any: ...


@runtime_checkable
class HLGDaskCollection(DaskCollection, Protocol):
    """A collection whose graph has layers."""

    def __dask_layers__(self) -> Sequence[str]: ...
