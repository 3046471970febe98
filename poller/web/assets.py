"""Style sheet, scripts and icon: read once at the start, so that no request opens a file."""

import hashlib
import mimetypes
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from aiohttp import web

_FOLDER: Final = "static"
_PLOTTER_PACKAGE: Final = "dygraphs"
_PLOTTER: Final = Path("assets", "dygraph-combined.js")
_KEPT: Final = {"Cache-Control": "private, max-age=31536000, immutable"}

PLOTTER: Final = web.AppKey("plotter", str)
"""The address of the library that draws the live chart; "" if it is not installed."""


def routes() -> list[web.RouteDef]:
    """Return a route for each file of our own."""
    return [
        _route(each.name, each.read_bytes()) for each in (files("poller.web") / _FOLDER).iterdir()
    ]


def plotter() -> bytes | None:
    """Return the script of the chart library, or None if it is not installed.

    Only its file is read: to import the package would load pandas.
    """
    spec = find_spec(_PLOTTER_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    try:
        return (Path(spec.origin).parent / _PLOTTER).read_bytes()
    except OSError:
        return None


def add_plotter(app: web.Application, script: bytes | None) -> None:
    """Serve the library below an address that changes with it, so that browsers may keep it."""
    app[PLOTTER] = ""
    if script is not None:
        name = f"dygraph-{hashlib.sha256(script).hexdigest()[:16]}.js"
        app[PLOTTER] = f"/{_FOLDER}/{name}"
        app.add_routes([_route(name, script, _KEPT)])


def _route(name: str, body: bytes, headers: dict[str, str] | None = None) -> web.RouteDef:
    kind, _ = mimetypes.guess_type(name)
    charset = "utf-8" if kind is not None and kind.startswith("text/") else None

    async def asset(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind or "", charset=charset, headers=headers)

    return web.get(f"/{_FOLDER}/{name}", asset)
