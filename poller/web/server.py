"""The HTTP server: routes, errors, and its life beside the tasks that feed it."""

import asyncio
import logging
import os
from importlib.resources import files
from pathlib import Path
from typing import Final

from aiohttp import web

from poller.errors import PollerError, StoreError
from poller.facts.observe import Happened, Ready, Recovered, Trouble
from poller.model import to_json
from poller.web import api, health, live, pages
from poller.web.guard import Handle, guard, harden
from poller.web.sources import SOURCES, Sources

_SHUTDOWN: Final = 1.0  # seconds for answers on their way
_MOST_BODY: Final = 4096

# aiohttp would log a trace for every request that is not HTTP; our own defects are told
_UNHEARD: Final = logging.getLogger("poller.web.unheard")
_UNHEARD.disabled = True
_PAUSE: Final = 1.0
_SHOWN: Final = frozenset({400, 404, 500, 503})  # what a reader of pages may run into


def application(sources: Sources) -> web.Application:
    """Return the application; it reads from `sources` and keeps nothing itself."""
    token = sources.config.web.token
    secret = None if token is None else token.get_secret_value()
    app = web.Application(middlewares=[_told, guard(secret)], client_max_size=_MOST_BODY)
    app[SOURCES] = sources
    app[live.READERS] = set()
    app[pages.TEMPLATES] = pages.templates()
    if secret is not None:
        app[pages.TOKEN] = secret
    app.on_response_prepare.append(harden)
    app.on_shutdown.append(live.end)
    app.add_routes(
        [
            web.get("/", pages.index),
            web.get("/symbols/{code}", pages.symbol),
            web.get("/login", pages.login),
            web.post("/login", pages.enter),
            web.get("/healthz", health.healthz),
            web.get("/readyz", health.readyz),
            web.get("/metrics", health.metrics),
            web.get("/events", live.events),
            *api.routes(),
        ]
    )
    app.router.add_static("/static", Path(str(files("poller.web") / "static")))
    return app


@web.middleware
async def _told(request: web.Request, handler: Handle) -> web.StreamResponse:
    """Say what went wrong in the asker's language.

    JSON below /api, elsewhere a page for a browser and a line of text for a program.
    """
    try:
        return await handler(request)
    except StoreError as problem:
        error: web.HTTPException = web.HTTPServiceUnavailable(text=f"Redis: {problem}")
    except web.HTTPException as raised:
        error = raised
    except Exception as defect:  # noqa: BLE001  of ours: it ends this answer, and nothing else
        resource = request.match_info.route.resource
        place = resource.canonical if resource is not None else "page"
        request.app[SOURCES].observe(Trouble(f"page {place}", repr(defect)))
        error = web.HTTPInternalServerError(text="a defect of the page; the log has it")
    if request.path.startswith("/api/"):
        error.text = to_json({"error": (error.text or error.reason).strip()})
        error.content_type = "application/json"
    elif error.status in _SHOWN and "text/html" in request.headers.get("Accept", ""):
        return pages.refusal(request, error)
    raise error


class NoPlace(PollerError):
    """The page cannot be served where the configuration says."""


async def serve(sources: Sources, *, alone: bool = False) -> None:
    """Serve until cancelled; a port in use is told and tried again, the rest of the service works.

    `alone`: there is no rest; it is ready once it listens, and raises NoPlace when it cannot. With
    port 0 the system chooses one; the log names it.
    """
    runner = web.AppRunner(
        application(sources),
        access_log=None,
        logger=_UNHEARD,
        shutdown_timeout=_SHUTDOWN,
        handle_signals=False,
    )
    await runner.setup()
    try:
        await _listen(runner, sources, alone=alone)
        await sources.overview.run(sources.observe)
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, sources: Sources, *, alone: bool) -> None:
    table, observe = sources.config.web, sources.observe
    while True:
        site = web.TCPSite(runner, table.host, table.port)
        try:
            await site.start()
        except OSError as problem:
            await site.stop()
            # asyncio's text names the address a second time
            reason = os.strerror(problem.errno) if problem.errno else str(problem)
            where = f"{table.host} port {table.port}"
            told = f"{where}: {reason}; set web.host and web.port"
            if alone:
                raise NoPlace(f"page: {told}") from None
            observe(Trouble("page", told))
            await asyncio.sleep(_PAUSE)
        else:
            break
    observe(Recovered("page"))
    host, port = runner.addresses[0][:2]
    shown = f"[{host}]" if ":" in host else host
    observe(Happened("page", (("url", f"http://{shown}:{port}/"),)))
    if alone:
        observe(Ready())
