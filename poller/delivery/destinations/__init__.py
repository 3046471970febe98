"""The kinds of endpoints: one module per destination, discovered in this package.

Code outside never asks which destination an endpoint has: whatever differs is a field of
`Destination`.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from poller.delivery.destinations.destination import ANY, Destination, Sender, Service
from poller.delivery.endpoint import Endpoint
from poller.delivery.target import check_url as check_web_url
from poller.delivery.target import host_of
from poller.errors import ConfigError
from poller.registry import Registry

__all__ = ["Destination", "Sender"]  # re-exported, in addition to what is defined here

DESTINATIONS: Final = Registry(Destination, "destinations")
register, all_destinations = DESTINATIONS.register, DESTINATIONS.all


def flags() -> tuple[str, ...]:
    """Return the keys of `[[webhooks]]` that choose a destination when true."""
    return tuple(each.flag for each in all_destinations() if each.flag is not None)


def choose(url: str, chosen: Collection[str]) -> Destination:
    """Return a URL's destination, even if it is invalid; `chosen`: the flags that are true."""
    for destination in all_destinations():
        if destination.flag in chosen:
            return destination
    by_scheme = {scheme: each for each in all_destinations() for scheme in each.schemes}
    return _by_host(url) or by_scheme.get(_scheme_of(url)) or by_scheme[ANY]


def _by_host(url: str) -> Destination | None:
    """Return the destination of a chat service's own URL, as the service hands it out."""
    host = _host_of(url)
    for destination, service in _services():
        if host and service.chooses and service.is_at(host, urlsplit(url).path):
            return destination
    return None


def _host_of(url: str) -> str | None:
    try:
        return host_of(url)
    except ValueError:
        return None


def _services() -> Iterator[tuple[Destination, Service]]:
    return ((each, service) for each in all_destinations() for service in each.services)


def _scheme_of(url: str) -> str:
    """Return the scheme in lower case; a URL without one is checked, and refused, as https."""
    scheme, found, _ = url.partition("://")
    return scheme.strip().lower() if found else "https"


def check_url(chosen: Destination, url: str, *, allow_http: bool, allow_private: bool) -> None:
    """Raise ValueError with the fix, and without the URL, unless the destination can send there.

    Chat services may answer 200 to a body they do not understand, with the refusal in theirs: every
    event to them would count as delivered and be lost.
    """
    if _scheme_of(url) in {"http", "https"}:
        _check_host(chosen, host_of(url), urlsplit(url).path)
        check_web_url(url, allow_http=allow_http, allow_private=allow_private)
    chosen.check_url(url)


def _check_host(chosen: Destination, host: str, path: str) -> None:
    for other, service in _services():
        if other is not chosen and service.is_at(host, path):
            if service.chooses:
                raise ValueError(f"it is a URL of {service.name}: leave {chosen.flag} out")
            fix = f"{service.name} takes messages in its own format there, not events: "
            end = "" if other.takes_secrets else "; no secret"
            end = f"; leave {chosen.flag} out" if chosen.flag is not None else end
            raise ValueError(f"{fix}{service.instead}{end}")


def check_secrets(chosen: Destination, url: str, secrets: Sequence[str]) -> None:
    """Raise ValueError with the fix unless the destination can use these secrets.

    Some hosts take signed events as well as messages; without a secret, a chat is probably meant.
    """
    try:
        chosen.check_secrets(secrets)
    except ValueError as problem:
        host = _host_of(url)
        for _, service in _services():
            if host and not secrets and service.takes_json == "/" and service.has(host):
                said = f"for a chat in {service.name}, {service.instead}; else, {problem}"
                raise ValueError(said) from None
        raise


def check_usable(endpoints: Iterable[Endpoint]) -> None:
    """Raise ConfigError with a line per endpoint whose destination cannot be used."""
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
