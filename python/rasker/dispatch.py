"""Functions chosen by the type of their first argument, with rules that wait for an import."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Dispatch:
    """A function that has one implementation per type.

    Parameters
    ----------
    name : str, optional
        Shown in messages.

    Examples
    --------
    >>> describe = Dispatch("describe")
    >>> @describe.register(int)
    ... def describe_int(x):
    ...     return "a whole number"
    >>> describe(True)
    'a whole number'
    """

    def __init__(self, name: str | None = None) -> None:
        self.__name__ = name or "dispatch"
        self._rules: dict[type, Callable[..., Any]] = {}
        self._found: dict[type, Callable[..., Any]] = {}
        self._waiting: dict[str, list[Callable[[], Any]]] = {}

    def register(self, type: Any, func: Callable[..., Any] | None = None) -> Callable[..., Any]:
        """Add the implementation for a type or a tuple of types; also a decorator.

        Parameters
        ----------
        type : type or tuple of type
        func : callable, optional
            Without it a decorator is returned.
        """

        def add(func: Callable[..., Any]) -> Callable[..., Any]:
            for t in type if isinstance(type, tuple) else (type,):
                self._rules[t] = func
            self._found.clear()
            return func

        return add if func is None else add(func)

    def register_lazy(
        self, toplevel: str, func: Callable[[], Any] | None = None
    ) -> Callable[..., Any]:
        """Add a function that registers rules once a package has been imported by someone.

        Parameters
        ----------
        toplevel : str
            Name of the package, without dots.
        func : callable without arguments, optional
            Without it a decorator is returned.
        """

        def add(func: Callable[[], Any]) -> Callable[[], Any]:
            self._waiting.setdefault(toplevel, []).append(func)
            self._found.clear()
            return func

        return add if func is None else add(func)

    def dispatch(self, cls: type) -> Callable[..., Any]:
        """The implementation for a class, or for the nearest of its bases.

        Raises
        ------
        TypeError
            If there is none.
        """
        found = self._found.get(cls)
        if found is not None:
            return found
        for base in cls.__mro__:
            waiting = self._waiting.pop((base.__module__ or "").partition(".")[0], None)
            if waiting:
                # Rules of a package are only wanted when one of its objects is seen, and then
                # the package has been imported.
                for load in waiting:
                    load()
                return self.dispatch(cls)
            if base in self._rules:
                found = self._rules[base]
                self._found[cls] = found
                return found
        raise TypeError(f"{self.__name__} has no rule for type {cls.__module__}.{cls.__qualname__}")

    def __call__(self, arg: Any, *args: Any, **kwargs: Any) -> Any:
        return self.dispatch(type(arg))(arg, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<Dispatch {self.__name__}: {len(self._rules)} types>"


def loaded(package: str) -> Any:
    """The module if someone has imported it, else None."""
    return sys.modules.get(package)
