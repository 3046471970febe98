"""Registries of plug-ins: those that a package's modules define, and others registered by hand."""

import pkgutil
from collections.abc import Iterable
from importlib import import_module
from typing import Generic, Protocol, TypeVar


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


class Registry(Generic[T]):
    """All plug-ins of one kind, by name. Fixed from the first call of `all` on."""

    def __init__(self, kind: type[T], plural: str) -> None:
        """`plural`: the kind's name in error messages, in the plural."""
        self._kind = kind
        self._plural = plural
        self._registered: dict[str, T] = {}
        self._all: tuple[T, ...] | None = None

    def register(self, one: T) -> None:
        """Add one. Patterns and schemas are built from all of them, so this must come first.

        Raises RuntimeError once `all` has been called, or if the name is taken.
        """
        if self._all is not None:
            raise RuntimeError(f"{one.name} comes too late: the {self._plural} are in use")
        if one.name in self._registered:
            raise RuntimeError(f"there are two {self._plural} {one.name}")
        self._registered[one.name] = one

    def all(self) -> tuple[T, ...]:
        """Return all of them, sorted by name."""
        if self._all is None:
            self._all = tuple(self._registered[name] for name in sorted(self._registered))
        return self._all

    def __getitem__(self, name: str) -> T:
        return self._registered[name]

    def named(self, name: str) -> T | None:
        """Return the one with this name, or None."""
        return self._registered.get(name)

    def discover(self, package: str, folders: Iterable[str]) -> None:
        """Import the modules of a package and register every instance they define."""
        for module in sorted(found.name for found in pkgutil.iter_modules(folders)):
            for one in vars(import_module(f"{package}.{module}")).values():
                if isinstance(one, self._kind):
                    self.register(one)
