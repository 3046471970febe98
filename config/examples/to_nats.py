"""Publishes every event to NATS JetStream, once: python to_nats.py [URL] [NATS_URL]

URL: of Redis. Subjects are short-interest.HK.00700 and so on. Needs nats-py.
"""

import asyncio
import sys

import nats
from nats.errors import Error, MaxPayloadError
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError

from poller import subscribe
from poller.errors import StoreMisfit
from poller.events import StreamEvent

STREAM = StreamConfig(
    "SHORT_INTEREST",
    subjects=["short-interest.>"],
    duplicate_window=86_400,  # seconds: longer than this is ever down after it was killed
)


said: set[str] = set()  # since it was last there: each try would say the same


async def say(problem: object) -> None:
    if (line := f"NATS: {problem}") not in said:
        said.add(line)
        print(line, file=sys.stderr, flush=True)


async def back() -> None:
    said.clear()


async def publish(stream: JetStreamContext, event: StreamEvent) -> None:
    parts = filter(None, event.code.split("."))  # no empty ones, as of "US.A."
    subject, data = ".".join(["short-interest", *parts]), event.data_json.encode()
    while True:
        try:  # NATS stores an id once, also when this was killed before it could acknowledge
            await stream.publish(subject, data, headers={"Nats-Msg-Id": event.id})
        except MaxPayloadError as problem:
            await say(f"passed over {event.id}: {problem}")
        except Error as problem:  # it is away, or has no leader of the stream yet
            await say(problem)
            await asyncio.sleep(1)
            continue
        said.clear()
        break


async def main(url: str, place: str) -> None:
    forever = {"max_reconnect_attempts": -1, "reconnect_time_wait": 1, "reconnected_cb": back}
    stream = (await nats.connect(place, error_cb=say, **forever)).jetstream()
    try:
        await stream.stream_info(STREAM.name)  # as somebody has set it up
    except NotFoundError:
        await stream.add_stream(STREAM)
    async with subscribe(url, group="nats", after="0") as events:  # at first from the oldest
        async for event in events:  # asking for the next one acknowledges the one before
            await publish(stream, event)


try:
    defaults = ["redis://127.0.0.1:6379", "nats://127.0.0.1:4222"]
    asyncio.run(main(*sys.argv[1:3], *defaults[len(sys.argv) - 1 :]))
except (StoreMisfit, Error) as refusal:
    sys.exit(str(refusal))
except KeyboardInterrupt:
    pass
