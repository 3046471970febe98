"""A FastStream consumer of the events; handlers get `data`, decoded: python to_faststream.py [URL]

It ends when its group was deleted, or no server answers at its start: let systemd restart it.
"""

import asyncio
import contextlib
import json
import sys
from typing import Any

from faststream import FastStream, Logger
from faststream.redis import RedisBroker, StreamSub
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

URL = sys.argv[1] if len(sys.argv) > 1 else "redis://127.0.0.1:6379"
STREAM, GROUP = "short-interest", "faststream"
# one consumer, so that the events of a symbol stay in order
READ = StreamSub(STREAM, 1000, group=GROUP, consumer="only", max_records=100)

broker = RedisBroker(URL, log_level=10)  # DEBUG: without a line for every message
app = FastStream(broker)


@app.on_startup
async def take_up() -> None:
    # begin with all there is; go on before what was delivered but not acknowledged
    async with Redis.from_url(URL, decode_responses=True) as client:
        with contextlib.suppress(ResponseError):  # the group is there
            await client.xgroup_create(STREAM, GROUP, "0", mkstream=True)
        await client.xautoclaim(STREAM, GROUP, "only", 0)  # forgets what was trimmed meanwhile
        pending = await client.xpending(STREAM, GROUP)
        if pending["pending"]:
            time, number = map(int, pending["min"].split("-"))
            before = f"{time}-{number - 1}" if number else f"{time - 1}-{2**64 - 1}"
            await client.xgroup_setid(STREAM, GROUP, before)


async def guard(message: Any, parse: Any) -> Any:  # noqa: ANN401  of FastStream
    data = message["data"].get(b"data", b"")
    try:
        json.loads(data.decode())
    except (ValueError, RecursionError):  # FastStream would not acknowledge it
        data = b"null"
    return await parse({**message, "data": {b"data": data}})


@broker.subscriber(stream=READ, parser=guard)
async def on_event(event: Any, logger: Logger) -> None:  # noqa: ANN401  anybody may append
    if not isinstance(event, dict) or not {"id", "code", "trading_day"} <= event.keys():
        logger.warning("passed over what is not an event")
        return  # returning acknowledges it; after an exception it comes again at the next start
    print(event["code"], event["trading_day"], event.get("change"), flush=True)


try:
    asyncio.run(app.run())
except RedisError as refusal:
    sys.exit(f"Redis refuses: {refusal}")
