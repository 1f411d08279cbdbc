"""Types of the collection protocol, for annotations and `isinstance`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


class NoDefault:
    """The class of `no_default`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<no default>"

    def __reduce__(self) -> str:
        return "no_default"


no_default: Final = NoDefault()

_PROTOCOLS = frozenset(
    (
        "DaskCollection HLGDaskCollection PostComputeCallable PostPersistCallable "
        "SchedulerGetCallable Key Graph NestedKeys CollType CollType_co"
    ).split()
)


def __getattr__(name: str) -> object:
    # `typing.Protocol` costs milliseconds to import, and only annotations need it.
    if name in _PROTOCOLS:
        from rasker import _protocols

        value = getattr(_protocols, name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'rasker.typing' has no attribute {name!r}")


if TYPE_CHECKING:
    from rasker._protocols import (
        CollType as CollType,
    )
    from rasker._protocols import (
        CollType_co as CollType_co,
    )
    from rasker._protocols import (
        DaskCollection as DaskCollection,
    )
    from rasker._protocols import (
        Graph as Graph,
    )
    from rasker._protocols import (
        HLGDaskCollection as HLGDaskCollection,
    )
    from rasker._protocols import (
        Key as Key,
    )
    from rasker._protocols import (
        NestedKeys as NestedKeys,
    )
    from rasker._protocols import (
        PostComputeCallable as PostComputeCallable,
    )
    from rasker._protocols import (
        PostPersistCallable as PostPersistCallable,
    )
    from rasker._protocols import (
        SchedulerGetCallable as SchedulerGetCallable,
    )
