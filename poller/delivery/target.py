"""Checks webhook URLs, and keeps them byte for byte as configured when they are sent. Pure."""

import base64
import re
from typing import Final
from urllib.parse import unquote, urlsplit

from yarl import URL

from poller.delivery.addresses import as_address, is_public, names_loopback

_IN_FULL: Final = "write it in full, as https:// and so on"
_UNSENT: Final = re.compile(r"[\x00-\x20\x7f]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NAME: Final = re.compile(r"(?=.{1,253}\Z)([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}", re.ASCII)
"""A host name as DNS accepts it, lengths included."""

_NUMBER: Final = re.compile(r"(\A|\.)([0-9]+|0x[0-9a-f]*)\.?\Z", re.ASCII)
"""The end of an odd spelling of an address (127.1, 0x7f000001), which some resolvers accept."""


def check_url(url: str, *, allow_http: bool, allow_private: bool) -> None:
    """Raise ValueError with the fix, and without the URL, unless events may be posted there."""
    host = host_of(url)
    local = names_loopback(host)
    if urlsplit(url).scheme == "http" and not (local or allow_http):
        raise ValueError(
            "with http anyone on the network path can read the events: use https, or say "
            "allow_http = true"
        )
    address = as_address(host)
    if address is not None and not (local or allow_private) and not is_public(address):
        raise ValueError(
            "it names a private address: use a public one, or say allow_private = true"
        )
    if address is None and _NUMBER.search(host):
        raise ValueError(
            "its host ends in a number and is no address: write the four numbers of one, as in "
            "192.0.2.7, or a host name"
        )
    if address is None and not _NAME.fullmatch(host.removesuffix(".")):
        raise ValueError(
            "its host is no name that can be looked up: letters, digits, '-' and '.', with 1 to "
            "63 characters between the dots, as in https://example.org/hook"
        )
    _check_target(url)
    basic_auth(url)


def check_chat_url(url: str) -> None:
    """Raise ValueError with the fix, and without the URL, unless an apprise URL can be read."""
    if _CONTROL.search(url):
        raise ValueError("it holds a line break or another control character: leave it out")
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.username, parts.password
    except ValueError:  # its text could show the URL
        raise ValueError(
            "the part before the third '/' cannot be read: percent-encode '[' as %5B, ']' as "
            "%5D, and what is not ASCII"
        ) from None


def _check_target(url: str) -> None:
    """Raise ValueError unless everything after the host reaches the receiver unchanged."""
    parts = urlsplit(url)
    if not f"{parts.path}{parts.query}".isascii():
        raise ValueError(
            "it holds a character that is not ASCII after the host: percent-encode it as UTF-8 "
            "(é is %C3%A9)"
        )
    if "#" in url:
        raise ValueError("what follows '#' is never sent: leave it out, or write %23 for the '#'")
    if url.endswith("?"):
        raise ValueError("a '?' at its end is not sent: leave it out")


def host_of(url: str) -> str:
    """Return the host as it is looked up: ASCII, lower case.

    Raises ValueError with the fix, and without the URL, if it is not a full https or http URL.
    """
    if _UNSENT.search(url):
        raise ValueError(
            "it holds a space, a line break or another control character: leave it out, "
            "or percent-encode it (a space is %20)"
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        ascii_host = URL.build(scheme="http", host=host).raw_host if host else None
    except ValueError:  # its text could show the URL
        ascii_host = None
    if not ascii_host or "\\" in parts.netloc or parts.scheme not in {"http", "https"}:
        raise ValueError(_IN_FULL)
    return ascii_host.lower()


def as_sent(url: str) -> URL:
    """Return an accepted URL that aiohttp sends unchanged: no `%2F` decoded, no `~` encoded.

    User and password are left out; `basic_auth` sends them as a header.
    """
    parts, host = urlsplit(url), host_of(url)
    return URL.build(
        scheme=parts.scheme,
        host=f"[{host}]" if ":" in host else host,
        port=parts.port,
        path=parts.path or "/",
        query_string=parts.query,
        encoded=True,
    )


def with_query(url: str, query: str) -> URL:
    """Return an accepted URL as `as_sent` does, with further parameters, percent-encoded."""
    return as_sent(f"{url}{'&' if urlsplit(url).query else '?'}{query}")


def basic_auth(url: str) -> str | None:
    """Return the Authorization header for a URL's user and password; None without them.

    Raises ValueError, which shows neither, if they cannot be sent.
    """
    parts = urlsplit(url)
    if parts.username is None and parts.password is None:
        return None
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if ":" in user:
        raise ValueError("a user name before '@' cannot hold a colon: receivers split there")
    try:
        pair = f"{user}:{password}".encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(
            "its user or password holds a character a header cannot carry: use Latin-1"
        ) from None
    return f"Basic {base64.b64encode(pair).decode()}"
