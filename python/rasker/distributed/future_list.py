"""`FutureList`: the futures of one `map`, made when they are looked at."""

from __future__ import annotations

import operator
from collections.abc import MutableSequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

from rasker._native import Handles


class FutureList(Handles):  # type: ignore[type-arg]
    """A list of futures that costs nothing per future until one is looked at.

    It does what a list does.  The first change makes a real list of it.

    Examples
    --------
    >>> futures = client.map(abs, range(-3, 0))  # doctest: +SKIP
    >>> client.gather(futures), len(futures[1:])  # doctest: +SKIP
    ([3, 2, 1], 2)
    """

    # The real list, once there is one.
    _items: list[Any] | None = None

    def _list(self) -> list[Any]:
        if self._items is None:
            handle = self.handle
            self._items = [handle(i) for i in range(Handles.__len__(self))]
        return self._items

    @property
    def is_lazy(self) -> bool:
        """True as long as the engine's own sequence says it all."""
        return self._items is None

    def __len__(self) -> int:
        return Handles.__len__(self) if self._items is None else len(self._items)

    def __getitem__(self, index: Any) -> Any:
        if self._items is not None:
            return self._items[index]
        if isinstance(index, slice):
            return [self.handle(i) for i in range(*index.indices(len(self)))]
        i = operator.index(index)
        n = Handles.__len__(self)
        if i < 0:
            i += n
        if not 0 <= i < n:
            raise IndexError("list index out of range")
        return self.handle(i)

    def __iter__(self) -> Iterator[Any]:
        if self._items is not None:
            return iter(self._items)
        return (self.handle(i) for i in range(Handles.__len__(self)))

    def __reversed__(self) -> Iterator[Any]:
        if self._items is not None:
            return iter(self._items[::-1])
        return (self.handle(i) for i in range(Handles.__len__(self) - 1, -1, -1))

    def __contains__(self, item: object) -> bool:
        return any(f is item or f == item for f in self)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._list()[index] = value

    def __delitem__(self, index: Any) -> None:
        del self._list()[index]

    def __add__(self, other: Any) -> list[Any]:
        if not isinstance(other, (list, FutureList)):
            return NotImplemented
        return [*self, *other]

    def __radd__(self, other: Any) -> list[Any]:
        if not isinstance(other, list):
            return NotImplemented
        return [*other, *self]

    def __iadd__(self, other: Iterable[Any]) -> FutureList:  # type: ignore[misc]
        self._list().extend(other)
        return self

    def __mul__(self, n: int) -> list[Any]:
        return list(self) * n

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, (list, FutureList)):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def append(self, item: Any) -> None:
        """Add one item at the end."""
        self._list().append(item)

    def extend(self, items: Iterable[Any]) -> None:
        """Add items at the end."""
        self._list().extend(items)

    def insert(self, index: int, item: Any) -> None:
        """Add one item before the place `index`."""
        self._list().insert(index, item)

    def pop(self, index: int = -1) -> Any:
        """Take one item out."""
        return self._list().pop(index)

    def remove(self, item: Any) -> None:
        """Take the first equal item out."""
        self._list().remove(item)

    def clear(self) -> None:
        """Take all items out, which releases the futures that nobody else has."""
        self._items = []
        Handles.release(self)

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        """Sort in place."""
        self._list().sort(key=key, reverse=reverse)

    def reverse(self) -> None:
        """Reverse in place."""
        self._list().reverse()

    def index(self, item: Any, start: int = 0, stop: int | None = None) -> int:
        """The place of the first equal item."""
        return list(self).index(item, start, len(self) if stop is None else stop)

    def count(self, item: Any) -> int:
        """How many items are equal."""
        return sum(1 for f in self if f == item)

    def copy(self) -> list[Any]:
        """A real list of the same futures."""
        return list(self)

    def __reduce__(self) -> Any:
        return (list, (list(self),))

    def __repr__(self) -> str:
        n = len(self)
        shown = ", ".join(map(repr, self[:3]))
        return f"[{shown}{f', … {n - 3} more' if n > 3 else ''}]"


MutableSequence.register(FutureList)


def handles_of(futures: Any) -> Any:
    """What the engine takes for a sequence of futures: its own sequence where that says it all."""
    if isinstance(futures, FutureList):
        return futures if futures._items is None else futures._items
    return futures if isinstance(futures, list) else list(futures)
