"""Everything in which kinds of endpoints differ: one file a destination, found by being here.

Nobody outside asks which destination an endpoint has: what differs is a field of `Destination`.
"""

from collections.abc import Collection, Iterable
from typing import Final
from urllib.parse import urlsplit

from poller.delivery.destinations.destination import ANY, Destination, Sender
from poller.delivery.endpoint import Endpoint
from poller.delivery.target import check_url as check_web_url
from poller.delivery.target import host_of
from poller.errors import ConfigError
from poller.registry import Registry

__all__ = ["Destination", "Sender"]  # beside what is defined here

DESTINATIONS: Final = Registry(Destination, "destinations")
register, all_destinations = DESTINATIONS.register, DESTINATIONS.all


def flags() -> tuple[str, ...]:
    """Return the keys of `[[webhooks]]` that choose a destination when they are true."""
    return tuple(each.flag for each in all_destinations() if each.flag is not None)


def choose(url: str, chosen: Collection[str]) -> Destination:
    """Return the destination of a URL, be it one that can be sent to or not.

    `chosen`: the flags that are true.
    """
    for destination in all_destinations():
        if destination.flag in chosen:
            return destination
    by_scheme = {scheme: each for each in all_destinations() for scheme in each.schemes}
    return by_scheme.get(_scheme_of(url)) or by_scheme[ANY]


def _scheme_of(url: str) -> str:
    """Return the scheme in small letters; a URL without one is refused as one of https would be."""
    scheme, found, _ = url.partition("://")
    return scheme.strip().lower() if found else "https"


def check_url(chosen: Destination, url: str, *, allow_http: bool, allow_private: bool) -> None:
    """Raise ValueError with the fix, and without the URL, unless the destination can send there.

    Services that want a form of their own may answer 200 to anything else, with the refusal in the
    body: every event to them would count as delivered and be lost.
    """
    if _scheme_of(url) in {"http", "https"}:
        _check_host(chosen, host_of(url), urlsplit(url).path)
        check_web_url(url, allow_http=allow_http, allow_private=allow_private)
    chosen.check_url(url)


def _check_host(chosen: Destination, host: str, path: str) -> None:
    for other in all_destinations():
        for service in other.services:
            if other is not chosen and service.is_at(host, path):
                fix = f"{service.name} takes messages of its own form there, not events: "
                end = "" if other.takes_secrets else "; no secret"
                end = f"; leave {chosen.flag} out" if chosen.flag is not None else end
                raise ValueError(f"{fix}{service.instead}{end}")


def check_usable(endpoints: Iterable[Endpoint]) -> None:
    """Raise ConfigError with a line for each endpoint whose destination cannot be used."""
    problems = []
    for endpoint in endpoints:
        try:
            destination_of(endpoint).check_usable(endpoint)
        except ValueError as problem:
            problems.append(f"webhook {endpoint.name}: url: {problem}")
    if problems:
        raise ConfigError(problems)


def destination_of(endpoint: Endpoint) -> Destination:
    """Return the destination of an endpoint."""
    return DESTINATIONS[endpoint.destination]


DESTINATIONS.discover(__name__, __path__)
