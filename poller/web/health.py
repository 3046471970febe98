"""For those who watch: does the loop turn, is the service ready, and what are the numbers."""

from aiohttp import web

from poller.web.metrics import CONTENT_TYPE
from poller.web.samples import readings
from poller.web.service_status import unready
from poller.web.sources import SOURCES


async def healthz(_: web.Request) -> web.Response:
    """Answer at all: the loop turns."""
    return web.json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Say whether Redis and OpenD answer and every shared component runs; 503 otherwise.

    A defect of one endpoint or one symbol is named, and the service is ready all the same.
    """
    survey = await request.app[SOURCES].survey()
    reasons = unready(survey)
    return web.json_response(
        {"ready": not reasons, "reasons": reasons, "defects": list(survey.defects)},
        status=503 if reasons else 200,
    )


async def metrics(request: web.Request) -> web.Response:
    """Answer in Prometheus' text format, also while Redis is away."""
    sources = request.app[SOURCES]
    survey = await sources.survey()
    sources.metrics.tell(readings(survey), survey.reports)
    return web.Response(body=sources.metrics.text(), headers={"Content-Type": CONTENT_TYPE})
