"""Who may read, and what a browser may do with it.

On loopback anybody on this machine may read; a page of another site that makes its name point here
(DNS rebinding) is told apart by the Host header. With a token, and so on every other address, the
token is demanded: as a bearer token, or once in a form, which a cookie then stands for. Many wrong
tokens from one address make its next ones wait; the cookie, which nobody guesses, is let in all the
while.
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
"""What is served without a token: it tells nothing."""

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
    except ValueError:  # no name, or a port that is none
        return False


def guard(token: str | None, wrong: WrongTokens) -> Middleware:
    """Return the middleware that lets in only those who may read."""

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
    """Return whether this is the token, and count it if not; raises HTTPTooManyRequests."""
    if seconds := wrong.wait(address):
        raise web.HTTPTooManyRequests(
            text=f"too many wrong tokens from this address; the next is looked at in {seconds} s\n",
            headers={"Retry-After": str(seconds)},
        )
    if matches(given, token):
        wrong.right(address)
        return True
    wrong.wrong(address)
    return False


def grant(response: web.StreamResponse, token: str, *, secure: bool) -> None:
    """Set the cookie that stands for the token."""
    response.set_cookie(
        COOKIE,
        _session(token),
        max_age=_COOKIE_AGE,
        httponly=True,
        samesite="Strict",
        secure=secure,
    )


def matches(given: str, token: str) -> bool:
    """Compare in a time that tells nothing of where they differ."""
    # what is no UTF-8 arrives in headers as lone surrogates
    return hmac.compare_digest(given.encode(errors="surrogatepass"), token.encode())


async def harden(_: web.Request, response: web.StreamResponse) -> None:
    """Put the headers on every answer; a signal, so that refusals have them, too."""
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
    """Return what the cookie holds: not the token, and worthless once that is replaced."""
    return hmac.new(token.encode(), b"the page's session", hashlib.sha256).hexdigest()
