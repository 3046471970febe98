"""Access control and security headers of the page.

On loopback, anybody on this machine may read; another site whose name points here (DNS rebinding)
is refused by its Host header. With a token, which every other address requires, each request needs
it: as a bearer token, or once in the login form, which sets a session cookie. After many wrong
tokens an address must wait before the next one; session cookies keep working meanwhile.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from poller.delivery.addresses import names_loopback
from poller.web.throttle import WrongTokens

OPEN: Final = frozenset({"/healthz", "/login", "/static/page.css"})
"""Paths served without a token: they reveal nothing."""

COOKIE: Final = "poller-session"
_COOKIE_AGE: Final = 30 * 24 * 3600

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


def names_this_machine(header: str) -> bool:
    """Return whether a Host header names the loopback."""
    try:
        named = urlsplit(f"//{header}")
        return named.port != 0 and names_loopback(named.hostname or "")
    except ValueError:  # no host name, or an invalid port
        return False


def require_access(token: str | None, wrong: WrongTokens) -> Middleware:
    """Return the middleware that refuses requests without access."""

    @web.middleware
    async def admit(request: web.Request, handler: Handle) -> web.StreamResponse:
        if request.path in OPEN:
            return await handler(request)
        if token is None:
            if names_this_machine(request.host):
                return await handler(request)
            raise web.HTTPMisdirectedRequest(
                text="this page answers to localhost only; to serve it under another name, set "
                "web.token_file\n"
            )
        if _is_session(request, token) or _is_bearer(request, token, wrong):
            return await handler(request)
        if "text/html" in request.headers.get("Accept", ""):
            raise web.HTTPSeeOther("/login")
        raise web.HTTPUnauthorized(
            text="a token is needed: Authorization: Bearer …\n",
            headers={"WWW-Authenticate": "Bearer"},
        )

    return admit


def is_token(given: str, token: str, address: str | None, wrong: WrongTokens) -> bool:
    """Return whether this is the token; counts a wrong one. Raises HTTPTooManyRequests."""
    if seconds := wrong.wait(address):
        raise web.HTTPTooManyRequests(
            text=f"too many wrong tokens from this address; the next is checked in {seconds} s\n",
            headers={"Retry-After": str(seconds)},
        )
    if matches(given, token):
        wrong.right(address)
        return True
    wrong.wrong(address)
    return False


def grant(response: web.StreamResponse, token: str, *, secure: bool) -> None:
    """Set the session cookie."""
    response.set_cookie(
        COOKIE,
        _session(token),
        max_age=_COOKIE_AGE,
        httponly=True,
        samesite="Strict",
        secure=secure,
    )


def matches(given: str, token: str) -> bool:
    """Compare in constant time."""
    # bytes in headers that are not UTF-8 arrive as lone surrogates
    return hmac.compare_digest(given.encode(errors="surrogatepass"), token.encode())


async def harden(_: web.Request, response: web.StreamResponse) -> None:
    """Add the headers to every answer; a signal, so that refusals have them, too."""
    for name, text in HEADERS.items():
        response.headers.setdefault(name, text)


def _is_bearer(request: web.Request, token: str, wrong: WrongTokens) -> bool:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    given = given.strip()
    if kind.lower() != "bearer" or not given:
        return False
    return is_token(given, token, request.remote, wrong)


def _is_session(request: web.Request, token: str) -> bool:
    return matches(request.cookies.get(COOKIE, ""), _session(token))


def _session(token: str) -> str:
    """Return the cookie's value: not the token itself, and invalid once that is replaced."""
    return hmac.new(token.encode(), b"the page's session", hashlib.sha256).hexdigest()
