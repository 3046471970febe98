"""`/events`: the stream as server-sent events.

A reader has a position in the stream, and receives what follows in batches whenever the stream has
grown. So replay and live events are the same, and a slow reader holds one batch and delays nobody.
"""

import asyncio
import contextlib
import re
from typing import Final

from aiohttp import hdrs, web

from poller.errors import StoreError
from poller.store.position import AFTER
from poller.web.connections import PageConnections
from poller.web.feed import Feed
from poller.web.sources import SOURCES

MOST_READERS: Final = 1_000
_KEEP_ALIVE: Final = 15.0  # seconds; proxies close connections that are silent for longer
_SLOWEST: Final = 30.0  # seconds to write one batch
_PAUSE: Final = 1.0

READERS: Final = web.AppKey("readers", set[asyncio.Task[None]])
MOST: Final = web.AppKey("most_readers", int)
CONNECTIONS: Final = web.AppKey("connections", PageConnections)


async def events(request: web.Request) -> web.StreamResponse:
    """Follow the stream after `Last-Event-ID` or `?after=`, else from now on."""
    feed, readers = request.app[SOURCES].feed, request.app[READERS]
    after = request.headers.get("Last-Event-ID") or request.query.get("after", "$")
    if after != "$" and not re.fullmatch(AFTER, after, re.ASCII):
        raise web.HTTPBadRequest(text="Last-Event-ID is no stream id, like 1715152502123-0\n")
    if len(readers) >= (most := request.app[MOST]):
        raise web.HTTPServiceUnavailable(
            text=f"{most} readers are connected already\n", headers={"Retry-After": "30"}
        )
    headers = {"Content-Type": "text/event-stream; charset=utf-8"}
    if request.method == hdrs.METH_HEAD:  # it has no body to wait for, and takes nobody's place
        return web.Response(headers=headers)
    response = web.StreamResponse(headers=headers)
    task = asyncio.create_task(_send(request, response, feed, after), name="event reader")
    readers.add(task)
    task.add_done_callback(readers.discard)
    request.app[CONNECTIONS].bind(request, task)
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()
    if not task.cancelled():
        with contextlib.suppress(ConnectionError, TimeoutError):  # the reader left, or is stuck
            task.result()
    return response


async def _send(
    request: web.Request, response: web.StreamResponse, feed: Feed, position: str
) -> None:
    if position == "$":  # before the answer begins: whoever has it misses nothing that follows
        with contextlib.suppress(StoreError):
            position = await feed.newest()
    await response.prepare(request)
    await response.write(b"retry: 2000\n\n")
    while True:
        try:
            if position == "$":
                position = await feed.newest()
            found, position = await feed.after(position)
        except StoreError:
            await asyncio.sleep(_PAUSE)
            continue
        if found:
            async with asyncio.timeout(_SLOWEST):
                await response.write(found)
            continue
        try:
            async with asyncio.timeout(_KEEP_ALIVE):
                await feed.grown(position)
        except TimeoutError:
            await response.write(b": still here\n\n")


async def end(app: web.Application) -> None:
    """End all readers, so that the server closes at once and none of them uses a closing store."""
    readers = app[READERS].copy()
    for task in readers:
        task.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
