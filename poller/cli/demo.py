"""`poller demo`: what the service does, as its users see it.

`poller run --simulate` runs as a separate process. The demo asks its `/readyz`, reads its two
streams, and verifies what it posts to a webhook receiver. It ends once a release is complete and a
figure revised, or with Ctrl-C.
"""

import asyncio
import base64
import contextlib
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web
from rich.text import Text
from standardwebhooks import Webhook, WebhookVerificationError

from poller import show
from poller.store.embedded import Embedded
from poller.store.ports import Streams
from poller.store.redisstore import RedisStore
from poller.store.store import Entry, Stream
from poller.telemetry.signals import until_signalled

LONGEST: Final = 90.0
"""Seconds until the demo gives up; on a quiet machine it takes some 25."""

_PAUSE: Final = 0.1
_FINISH: Final = 15.0
_INTRODUCTION: Final = """\
The whole service against a simulated OpenD: the official SDK over TCP, a real
(embedded) Redis server, a subscriber, a webhook receiver. For the demo OpenD's
30 s are 3 s; it ends by itself after some half a minute.

"""
_FURTHER: Final = """
To look further, the same with its page:
  {poller} run --simulate
It plays a report every 45 s for half an hour, then reports as they are due.
In a second terminal:
  {poller} tail                the last events, and what comes
  {poller} release HK          the newest report: who moved most, who is missing
  {poller} history HK.00700    ten rows of Futu's documentation, and what came
  {poller} explain HK.00700    what is known, when it is asked next, and why
"""

_Line = str | Callable[[Text], Text]
"""A text, or what returns a line with the given beginning."""


@dataclass
class _Seen:
    """What the service has published and posted so far.

    Attributes:
        rows: Backfilled events.
        symbols: The symbols they belong to.
        news: All other events, each of which is also posted to the receiver.
        verified: Posts with a valid signature.
        refused: Posts without one.
        kinds: The types of events and notices.
    """

    rows: int = 0
    symbols: set[str] = field(default_factory=set)
    news: int = 0
    verified: int = 0
    refused: int = 0
    kinds: set[str] = field(default_factory=set)

    @property
    def is_enough(self) -> bool:
        """Whether a release is complete, a figure was revised, and everything was posted."""
        wanted = {"release.completed", "short_interest.revised"}
        return wanted <= self.kinds and self.verified + self.refused >= self.news

    @property
    def summary(self) -> str:
        """One sentence: how much was read and posted, and how the signatures were."""
        read = f"{self.rows + self.news:,} events read"
        if not self.verified + self.refused:
            return f"{read}, none posted yet."
        verdict = f"{self.refused} refused" if self.refused else "every signature verified"
        return f"{read}, {self.verified:,} posted: {verdict}."


def demo() -> None:
    """Show the service at work for half a minute, against a simulated OpenD."""
    code = 0

    async def whole() -> None:
        nonlocal code
        code = await _play(_Seen())

    sys.stdout.write(_INTRODUCTION)
    interrupted = asyncio.run(until_signalled(whole()))
    for line in _FURTHER.format(poller=command_for(Path(sys.prefix))).splitlines():
        show.say(line, indent=6)
    sys.exit(interrupted or code)


def command_for(prefix: Path) -> str:
    """Return how to call `poller` from this directory, where its environment is at `prefix`."""
    if any((parent / "CACHEDIR.TAG").is_file() for parent in prefix.parents):
        return "uvx short-interest-poller"  # which runs it from its cache, on a PATH of its own
    script = Path(sys.executable).with_name("poller")
    if shutil.which("poller") == str(script):
        return "poller"
    return os.path.relpath(script) if script.is_relative_to(Path.cwd()) else str(script)


async def _play(seen: _Seen) -> int:
    """Run service, subscriber and receiver until enough was seen; return the exit code."""
    began = asyncio.get_running_loop().time()
    console = show.console()

    def say(what: _Line) -> None:
        seconds = f"{asyncio.get_running_loop().time() - began:4.1f} s  "
        before = Text().append(seconds, "dim")
        console.print(before + Text(what) if isinstance(what, str) else what(before))

    with tempfile.TemporaryDirectory(prefix="poller-demo-") as state:
        async with _receiver(seen) as settings, _service(state, settings) as (service, page):
            watching = asyncio.create_task(_watch(Path(state), page, seen, say))
            ended = asyncio.create_task(service.wait())
            complete = True
            try:
                await asyncio.wait(
                    (watching, ended), timeout=LONGEST, return_when=asyncio.FIRST_COMPLETED
                )
                complete = seen.is_enough
            except asyncio.CancelledError:  # Ctrl-C: the same end, but earlier
                pass
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        say(f"the service was told to stop and left with exit code {service.returncode}")
    console.print(seen.summary)
    if not complete:
        say("not everything that the demo shows was seen")
    return service.returncode or int(not complete or seen.refused > 0)


async def _watch(state: Path, page: str, seen: _Seen, say: Callable[[_Line], None]) -> None:
    """Print what the service publishes, until enough was seen."""
    say("poller run --simulate")
    async with aiohttp.ClientSession() as http:
        while not await _is_ready(http, page):
            await asyncio.sleep(_PAUSE)
    say(f"ready, its page: {page}/; history is read now")
    async with Embedded(state).running() as url, contextlib.AsyncExitStack() as stack:
        store = RedisStore(url, "short-interest")
        stack.push_async_callback(store.close)
        streams = store.streams

        def event(entry: Entry) -> None:
            if entry.fields["type"] == "short_interest.backfilled":
                seen.rows += 1
                seen.symbols.add(entry.fields["code"])
                return
            if not seen.news:
                say(f"history: {len(seen.symbols)} symbols, {seen.rows:,} rows, each an event")
            seen.news += 1
            say(partial(show.entry_line, entry))

        def notice(entry: Entry) -> None:
            say(partial(show.release_line, entry))

        followers = [
            asyncio.create_task(_follow(streams, stream, seen, told))
            for stream, told in ((Stream.EVENTS, event), (Stream.RELEASES, notice))
        ]
        try:
            while not seen.is_enough:
                await asyncio.sleep(_PAUSE)
        finally:
            for each in followers:
                each.cancel()
            await asyncio.gather(*followers, return_exceptions=True)


async def _is_ready(http: aiohttp.ClientSession, page: str) -> bool:
    try:
        async with http.get(f"{page}/readyz") as answer:
            return answer.status == web.HTTPOk.status_code
    except aiohttp.ClientError:  # it does not listen yet
        return False


async def _follow(
    streams: Streams, stream: Stream, seen: _Seen, show_entry: Callable[[Entry], None]
) -> None:
    """Call `show_entry` with each entry of a stream, from its beginning."""
    after = "0"
    while True:
        for entry in await streams.read(after, count=200, block=1.0, stream=stream):
            after = entry.id
            show_entry(entry)
            seen.kinds.add(entry.fields["type"])


@contextlib.asynccontextmanager
async def _service(
    state: str, settings: dict[str, str]
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run the service for the duration of the block; yield its process and its page's URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("POLLER_")},
        "POLLER_STATE_DIR": state,
        "POLLER_CONFIG": os.devnull,
        "POLLER_LOG_LEVEL": "warning",
        "POLLER_WEB__PORT": str(port),
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "poller", "run", "--simulate"),
        env=environment,
        start_new_session=True,  # Ctrl-C reaches the demo only, which then stops the service
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(_FINISH):
            await process.wait()


@contextlib.asynccontextmanager
async def _receiver(seen: _Seen) -> AsyncIterator[dict[str, str]]:
    """Run a receiver as a user would write it; yield the environment that configures it."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    signer = Webhook(secret)

    async def take(request: web.Request) -> web.Response:
        try:
            signer.verify(await request.text(), dict(request.headers))
        except WebhookVerificationError:
            seen.refused += 1
            return web.Response(status=401)
        seen.verified += 1
        return web.Response(status=204)

    application = web.Application()
    application.router.add_post("/", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield {
            "POLLER_WEBHOOKS__0__NAME": "demo",
            "POLLER_WEBHOOKS__0__URL": f"http://127.0.0.1:{runner.addresses[0][1]}/",
            "POLLER_WEBHOOKS__0__SECRET": secret,
        }
    finally:
        await runner.cleanup()
