"""`/healthz`, `/readyz` and `/metrics`."""

from aiohttp import web

from poller.telemetry.observe import right_of
from poller.web.metrics import CONTENT_TYPE
from poller.web.samples import samples_of
from poller.web.service_status import further, unready
from poller.web.sources import SOURCES


async def healthz(_: web.Request) -> web.Response:
    """Answer 200: the event loop is running."""
    return web.json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Answer 200 if Redis and OpenD answer and every shared component runs, else 503.

    The namespace tells services apart that share a machine.

    A defect of one endpoint or symbol is listed, as are a market an account has no right to and
    all other troubles, such as what OpenD says of its own state; none makes the service unready.
    """
    sources = request.app[SOURCES]
    service = await sources.service_status()
    reasons = unready(service)
    return web.json_response(
        {
            "ready": not reasons,
            "namespace": sources.config.redis.namespace,
            "reasons": reasons,
            "defects": list(service.defects),
            "resting": [f"{right_of(r.account, r.market)}: {r.reason}" for r in service.resting],
            "troubles": [f"{subject}: {why}" for subject, why in further(service).items()],
        },
        status=503 if reasons else 200,
    )


async def metrics(request: web.Request) -> web.Response:
    """Answer in Prometheus' text format, even while Redis is away."""
    sources = request.app[SOURCES]
    service = await sources.service_status()
    sources.metrics.update(samples_of(service), service.reports)
    return web.Response(body=sources.metrics.text(), headers={"Content-Type": CONTENT_TYPE})
