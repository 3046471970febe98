"""What there is of a kind: one a module of a package, and what is registered besides."""

import pkgutil
from collections.abc import Iterable
from importlib import import_module
from typing import Generic, Protocol, TypeVar


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


class Registry(Generic[T]):
    """Everything of one kind, by name. From the first look on it is what it is."""

    def __init__(self, kind: type[T], plural: str) -> None:
        """`plural`: what people call several of them."""
        self._kind = kind
        self._plural = plural
        self._registered: dict[str, T] = {}
        self._all: tuple[T, ...] | None = None

    def register(self, one: T) -> None:
        """Add one, before anybody asks which there are: patterns and schemas are made of them.

        Raises RuntimeError when somebody has asked, or when there is one of that name.
        """
        if self._all is not None:
            raise RuntimeError(f"{one.name} comes too late: the {self._plural} are in use")
        if one.name in self._registered:
            raise RuntimeError(f"there are two {self._plural} {one.name}")
        self._registered[one.name] = one

    def all(self) -> tuple[T, ...]:
        """Return every one, by name."""
        if self._all is None:
            self._all = tuple(self._registered[name] for name in sorted(self._registered))
        return self._all

    def __getitem__(self, name: str) -> T:
        return self._registered[name]

    def named(self, name: str) -> T | None:
        """Return the one of this name, or None."""
        return self._registered.get(name)

    def discover(self, package: str, folders: Iterable[str]) -> None:
        """Register each that stands in a module of a package."""
        for module in sorted(found.name for found in pkgutil.iter_modules(folders)):
            for one in vars(import_module(f"{package}.{module}")).values():
                if isinstance(one, self._kind):
                    self.register(one)
