"""Loading code: only the parts of a package that are needed, and without a look for garbage."""

import contextlib
import gc
import importlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec, module_from_spec
from types import ModuleType


@contextlib.contextmanager
def for_good() -> Iterator[None]:
    """Load what stays: nothing of it is searched for garbage, now or later.

    That search is a seventh of the time an import takes, and later stops the program for 0.1 s.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def part(name: str, *packages: str) -> ModuleType:
    """Import a module without running the `__init__` of these packages, its parents.

    `packages`: outermost first; whoever imports one of them later gets it whole.
    """
    hollow: dict[str, ModuleType] = {}
    try:
        for package in packages:
            spec = None if package in sys.modules else find_spec(package)
            if spec is not None:
                hollow[package] = sys.modules[package] = module_from_spec(spec)
        return importlib.import_module(name)
    finally:
        for package, stand_in in hollow.items():
            if sys.modules.get(package) is stand_in:
                del sys.modules[package]
