"""Parses the URL of Redis: one server, a Cluster's nodes, or Sentinels that know the primary."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

_SENTINEL: Final = "+sentinel"
_SENTINEL_OPTIONS: Final = {"sentinel_username": "username", "sentinel_password": "password"}
_HOST: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(:(?P<port>[0-9]{1,5}))?")
_NUMBER: Final = re.compile(r"[0-9]{0,9}")
_PORT: Final = 6379
_LAST_PORT: Final = 65535
_UNREADABLE: Final = (
    "write the hosts as HOST:PORT, several with commas between them, and percent-encode "
    "'@', '/', '#', '?', '[' and what is not ASCII in a password"
)
_SENTINEL_PORT: Final = 26379


class Node(NamedTuple):
    """A host name or address without brackets, and a TCP port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Location:
    """How to reach the server that takes the writes.

    Attributes:
        url: For redis-py: scheme, credentials, database, options; its host is a placeholder.
        nodes: The servers to ask, in any order; empty for a Unix socket.
        primary: The name the Sentinels know the primary by; then `nodes` are the Sentinels.
        sentinel: The Sentinels' credentials.
    """

    url: str = field(repr=False)
    nodes: tuple[Node, ...]
    primary: str | None = None
    sentinel: Mapping[str, str] = field(default_factory=dict, repr=False)


def locate(url: str) -> Location:
    """Parse a URL, or raise ValueError with what to write instead; its text holds no secret."""
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may contain the password
        raise ValueError(_UNREADABLE) from None
    base, watched = parts.scheme.removesuffix(_SENTINEL), parts.scheme.endswith(_SENTINEL)
    if base not in {"redis", "rediss", "unix"} or (watched and base == "unix"):
        raise ValueError(
            "start it with redis://, rediss:// (TLS), unix:// (a socket) or, for Sentinel, "
            "redis+sentinel:// or rediss+sentinel://"
        )
    if parts.fragment:
        raise ValueError("write %23 for '#': what follows that sign is no part of the URL")
    if base == "unix":
        return Location(url, ())
    credentials, _, hosts = parts.netloc.rpartition("@")
    nodes = tuple(_node(text, _SENTINEL_PORT if watched else _PORT) for text in hosts.split(","))
    plain = parts._replace(scheme=base, netloc=f"{credentials}@any" if credentials else "any")
    if not watched:
        if not _NUMBER.fullmatch(database := parts.path.strip("/")):  # redis-py would take 0
            raise ValueError(
                "its database is not a number: write redis://HOST:6379/1 for database 1, and %2F "
                "for a '/' in a password"
            )
        _check_option(database, parts.query)
        return Location(urlunsplit(plain), nodes)
    name, _, database = parts.path.strip("/").partition("/")
    if not name or not _NUMBER.fullmatch(database):
        raise ValueError(
            "name the primary as the Sentinels do: redis+sentinel://HOST:26379,HOST:26379/NAME, "
            "or …/NAME/1 for database 1"
        )
    _check_option(database, parts.query)
    options = parse_qsl(parts.query, keep_blank_values=True)
    query = urlencode([option for option in options if option[0] not in _SENTINEL_OPTIONS])
    sentinel = {_SENTINEL_OPTIONS[k]: text for k, text in options if k in _SENTINEL_OPTIONS}
    plain = plain._replace(path=f"/{database or 0}", query=query)
    return Location(urlunsplit(plain), nodes, unquote(name), sentinel)


def _check_option(database: str, query: str) -> None:
    """Raise ValueError if the option `db`, which counts, contradicts the database in the path.

    Database 0 in the path does not, since many write it whatever follows.
    """
    option = dict(parse_qsl(query, keep_blank_values=True)).get("db", database)
    if (written := database.lstrip("0")) and option.lstrip("0") != written:
        raise ValueError("its path and its option db name two databases: leave one of them out")


def _node(text: str, port: int) -> Node:
    if not text:
        return Node("localhost", port)
    found = _HOST.fullmatch(text)
    if found is None:
        raise ValueError(_UNREADABLE)
    number = int(found["port"] or port)
    if not 1 <= number <= _LAST_PORT:
        raise ValueError(f"a port is a number from 1 to {_LAST_PORT}")
    return Node(found["host"].strip("[]"), number)
