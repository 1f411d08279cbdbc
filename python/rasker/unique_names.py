"""Keys for calls that are not pure."""

from __future__ import annotations

import os
from itertools import count


class Names:
    """Texts that no other process makes, cheaply: a random part and a counter."""

    def __init__(self) -> None:
        self.renew()
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        # The first character is a digit, so that the text is never taken for a word.  60 random
        # bits: two clients of one scheduler with equal keys would be given each other's results.
        self.prefix = "0" + os.urandom(8).hex()[1:]
        self.next = count(1).__next__


names = Names()


def unique(name: str) -> str:
    """A key that starts with `name` and that nobody else makes."""
    return f"{name}-{names.prefix}{names.next():08x}"
