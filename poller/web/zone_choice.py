"""Remembers the time zone that a visitor chose, in a cookie: without script, too."""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from poller.web.zones import EACH_MARKET, PARAMETER, Zone, zone_named

COOKIE: Final = "poller-zone"
_COOKIE_AGE: Final = 365 * 24 * 3600

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]


def zone_of(request: web.Request) -> Zone:
    """Return the zone that was chosen; one that is unknown counts as none."""
    return zone_named(request.cookies.get(COOKIE, "")) or EACH_MARKET


def zoned(page: Page) -> Page:
    """Return the page, which remembers the zone that the query chooses."""

    async def remembering(request: web.Request) -> web.StreamResponse:
        name = request.query.get(PARAMETER)
        if name is None:
            return await page(request)
        if zone_named(name) is None:
            raise web.HTTPBadRequest(
                text=f"zone: {name!r} is unknown; use market, UTC or a name like Europe/Berlin"
            )
        rest = [(key, text) for key, text in request.query.items() if key != PARAMETER]
        response = web.Response(
            status=303, headers={"Location": str(request.rel_url.with_query(rest))}
        )
        response.set_cookie(
            COOKIE,
            name,
            max_age=_COOKIE_AGE,
            httponly=True,
            samesite="Lax",
            secure=request.secure,
        )
        return response

    return remembering
