"""Which destinations there are: one a module of this package, and those registered besides."""

import pkgutil
from collections.abc import Collection, Iterable
from functools import cache
from importlib import import_module
from urllib.parse import urlsplit

from poller.delivery.destinations.destination import ANY, Destination
from poller.delivery.endpoint import Endpoint
from poller.delivery.target import host_of
from poller.errors import ConfigError

_registered: dict[str, Destination] = {}


def register(destination: Destination) -> None:
    """Add a destination; before anybody asks which there are, as keys are made of them.

    Raises RuntimeError when somebody has, or when there is one of that name.
    """
    name = destination.name
    if all_destinations.cache_info().currsize:
        raise RuntimeError(f"{name} comes too late: the destinations are in use")
    if name in _registered:
        raise RuntimeError(f"there are two destinations {name}")
    _registered[name] = destination


@cache  # from the first call on they are what they are
def all_destinations() -> tuple[Destination, ...]:
    """Return every destination, by name."""
    return tuple(_registered[name] for name in sorted(_registered))


def discover(package: str, folders: Iterable[str]) -> None:
    """Register each destination that stands in a module of a package."""
    for module in sorted(found.name for found in pkgutil.iter_modules(folders)):
        for destination in vars(import_module(f"{package}.{module}")).values():
            if isinstance(destination, Destination):
                register(destination)


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
        host, path = host_of(url), urlsplit(url).path
        for other in all_destinations():
            for service in other.services:
                if other is chosen or not service.wants(host, path):
                    continue
                fix = f"{service.name} takes messages of its own form there, not events: "
                fix += service.instead
                if chosen.flag is not None:
                    fix += f"; leave {chosen.flag} out"
                elif not other.takes_secrets:
                    fix += "; no secret"
                raise ValueError(fix)
    chosen.check_url(url, allow_http=allow_http, allow_private=allow_private)


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
    return _registered[endpoint.destination]
