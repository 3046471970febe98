"""The HTTP server: its routes, its error answers, and starting and stopping it."""

import asyncio
import logging
import os
import resource
import time
import traceback
from pathlib import Path
from typing import Final, cast

from aiohttp import web

from poller.errors import PollerError, StoreDown, StoreError
from poller.model import to_json
from poller.store.reports import NoReport
from poller.telemetry.observe import Happened, Ready, Recovered, Trouble
from poller.web import api, assets, formatting, health, pages, rendering, sse, symbol_page
from poller.web.auth import Handle, harden, require_access
from poller.web.connections import Limits, PageConnections, harden_server, limits_of, widen_queue
from poller.web.sources import SOURCES, Sources
from poller.web.throttle import WrongTokens

_SHUTDOWN: Final = 1.0  # seconds to finish answers
_MOST_BODY: Final = 4096
_LINGERING: Final = 2.0  # seconds to discard the rest of a refused body

# aiohttp would log a traceback for every request that is not HTTP; our defects are reported below
_UNHEARD: Final = logging.getLogger("poller.web.unheard")
_UNHEARD.disabled = True
_PAUSE: Final = 1.0
_SHOWN: Final = frozenset({400, 404, 500, 503})  # errors that a browser gets as a page


def application(sources: Sources, connections: PageConnections) -> web.Application:
    """Return the application, which reads everything from `sources`."""
    token = sources.config.web.token
    secret = None if token is None else token.get_secret_value()
    wrong = WrongTokens(time.monotonic)
    app = web.Application(
        middlewares=[_refused, connections.answered, require_access(secret, wrong)],
        client_max_size=_MOST_BODY,
    )
    app[SOURCES] = sources
    app[_DEFECTS] = set()
    app[sse.CONNECTIONS] = connections
    app[sse.READERS] = set()
    app[sse.MOST] = min(sse.MOST_READERS, connections.limits.readers)
    app[rendering.TEMPLATES] = rendering.templates()
    app[pages.WRONG_TOKENS] = wrong
    if secret is not None:
        app[pages.TOKEN] = secret
    app.on_response_prepare.append(harden)
    app.on_shutdown.append(sse.end)
    app.add_routes(
        [
            web.get("/", pages.index),
            web.get("/symbols/{code}", symbol_page.symbol),
            web.get("/releases", pages.releases),
            web.get("/releases/", pages.releases),
            web.get("/releases/{market}", pages.release),
            web.get("/releases/{market}/{day}", pages.release),
            web.get("/login", pages.login),
            web.post("/login", pages.enter),
            web.get("/healthz", health.healthz),
            web.get("/readyz", health.readyz),
            web.get("/metrics", health.metrics),
            web.get("/events", sse.events),
            *api.routes(),
            *assets.routes(),
        ]
    )
    assets.add_plotter(app, assets.plotter())
    return app


_DEFECTS: Final = web.AppKey("defects", set[str])


@web.middleware
async def _refused(request: web.Request, handler: Handle) -> web.StreamResponse:
    """Answer an error in the client's format.

    JSON below /api; elsewhere a page for a browser, and a line of text for a program.
    """
    resource = request.match_info.route.resource
    subject = f"page {'' if resource is None else resource.canonical}".rstrip()
    try:
        response = await handler(request)
    except StoreError as problem:
        text = _unavailable(request.app[SOURCES], problem)
        error: web.HTTPException = web.HTTPServiceUnavailable(text=text)
    except NoReport as problem:
        error = web.HTTPNotFound(text=f"{problem}")
    except web.HTTPException as raised:
        error = raised
    except ConnectionError:  # the client is gone
        raise
    except Exception as defect:  # noqa: BLE001  it ends this answer, and nothing else
        request.app[_DEFECTS].add(subject)
        request.app[SOURCES].observe(Trouble(subject, _defect(defect)))
        error = web.HTTPInternalServerError(text="a defect of the page; the log has it")
    else:
        if subject in request.app[_DEFECTS]:
            request.app[_DEFECTS].discard(subject)
            request.app[SOURCES].observe(Recovered(subject))
        return response
    if f"{request.path}/".startswith("/api/"):
        error.text = to_json({"error": (error.text or error.reason).strip()})
        error.content_type = "application/json"
    elif error.status in _SHOWN and "text/html" in request.headers.get("Accept", ""):
        return pages.refusal(request, error)
    raise error


def _unavailable(sources: Sources, problem: StoreError) -> str:
    """Return what is wrong with Redis; if it does not answer, also when it did."""
    if not isinstance(problem, StoreDown):
        return f"Redis: {problem}"
    seen = sources.last_seen
    since = "" if seen is None else f"; last seen {formatting.ago(seen, sources.now())}"
    return f"Redis does not answer: {problem}{since}"


def _defect(problem: Exception) -> str:
    """Return the type and the place of a defect, without its text: that may be the client's."""
    frames = traceback.extract_tb(problem.__traceback__)
    own = [frame for frame in frames if f"{os.sep}poller{os.sep}" in frame.filename] or frames
    where = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    return f"a defect, please report it: {type(problem).__name__}{where}"


class CannotListen(PollerError):
    """The page cannot listen on the configured address."""


async def serve(
    sources: Sources, *, is_only_role: bool = False, limits: Limits | None = None
) -> None:
    """Serve until cancelled; a port in use is reported and tried again.

    `is_only_role`: no other component runs in this process, so it reports itself ready once it
    listens, and raises CannotListen if it cannot. With port 0, the system chooses one; the log
    names it. `limits`: by default derived from the process's limit of open files.
    """
    limits = limits or limits_of(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    connections = PageConnections(limits, sources.observe)
    runner = await running(sources, connections)
    server: asyncio.Server | None = None
    try:
        server = await _listen(runner, connections, sources, is_only_role=is_only_role)
        async with asyncio.TaskGroup() as work:
            work.create_task(connections.watch(), name="page connections")
            work.create_task(sources.feed.run(sources.observe), name="event feed")
            work.create_task(sources.keep_fresh(), name="page status")
            await sources.overview.run(sources.observe)
    finally:
        if server is not None:
            server.close()
        await runner.cleanup()


async def running(sources: Sources, connections: PageConnections) -> web.AppRunner:
    """Return the application, set up but not listening; the caller cleans it up."""
    runner = web.AppRunner(
        application(sources, connections),
        access_log=None,
        logger=_UNHEARD,
        shutdown_timeout=_SHUTDOWN,
        handle_signals=False,
        auto_decompress=False,  # no request needs a compressed body
        lingering_time=_LINGERING,
    )
    await runner.setup()
    harden_server(cast("web.Server", runner.server))
    return runner


async def _listen(
    runner: web.AppRunner, connections: PageConnections, sources: Sources, *, is_only_role: bool
) -> asyncio.Server:
    table, observe = sources.config.web, sources.observe
    while True:
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: connections.protocol_of(cast("web.Server", runner.server)),
                table.host,
                table.port,
                backlog=connections.limits.at_once,
            )
            widen_queue(server)
        except OSError as problem:
            # asyncio's text would repeat the address
            reason = os.strerror(problem.errno) if problem.errno else str(problem)
            where = f"{table.host} port {table.port}"
            text = f"{where}: {reason}; set web.host and web.port"
            if is_only_role:
                raise CannotListen(f"page: {text}") from None
            observe(Trouble("page", text))
            await asyncio.sleep(_PAUSE)
        else:
            break
    observe(Recovered("page"))
    host, port = server.sockets[0].getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    observe(Happened("page", (("url", f"http://{shown}:{port}/"),)))
    if is_only_role:
        observe(Ready())
    return server
