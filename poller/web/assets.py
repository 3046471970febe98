"""Style sheet, script and icon: read once at the start, so that no request opens a file."""

import mimetypes
from importlib.resources import files
from typing import Final

from aiohttp import web

_FOLDER: Final = "static"


def routes() -> list[web.RouteDef]:
    """Return a route for each file."""
    return [
        _route(each.name, each.read_bytes()) for each in (files("poller.web") / _FOLDER).iterdir()
    ]


def _route(name: str, body: bytes) -> web.RouteDef:
    kind, _ = mimetypes.guess_type(name)
    charset = "utf-8" if kind is not None and kind.startswith("text/") else None

    async def asset(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind or "", charset=charset)

    return web.get(f"/{_FOLDER}/{name}", asset)
