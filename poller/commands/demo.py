"""`poller demo`: the service against the simulator, a subscriber and a webhook receiver, at once.

The service is a process of its own; the subscriber reads its stream, the receiver verifies its
deliveries, and its log tells the milestones. It ends by itself once a release was complete and a
figure revised, after `LONGEST` seconds at the latest, or with Ctrl-C.
"""

import asyncio
import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from standardwebhooks import Webhook, WebhookVerificationError

from poller import show
from poller.facts.signals import until_signalled
from poller.storage.embedded import Embedded
from poller.storage.redisstore import RedisStore
from poller.storage.store import Entry

LONGEST: Final = 40.0
"""Seconds until the demo ends, whatever was seen."""

_LAST_LOOK: Final = 2.0  # seconds for what comes right after the last of it
_HEADLINE: Final = 0.5  # seconds a market's first row waits for the notice that it is out
_FINISH: Final = 15.0
_INTRODUCTION: Final = """\
The whole service against a simulated OpenD: the official SDK over TCP, a real (embedded) Redis
server, a subscriber, a webhook receiver. For the demo OpenD's 30 s are 3 s; it ends by itself after
some half a minute.
"""
_FURTHER: Final = """
To look further:
  {poller} run --simulate       the same with its page, a report every 45 s for half an hour,
  {space}                      then as they are due; in a second terminal:
  {poller} tail                 the last events, and what comes
  {poller} release HK           the newest report: who moved most, and who is missing
  {poller} history HK.00700     ten rows of Futu's own documentation, and what came since
  {poller} explain HK.00700     what is known of it, when it is asked for next, and why
"""

_WORDS: Final = {
    "store": "the embedded server answers: {server}",
    "page": "the status page is on {url}",
    "watchlist": "watching {symbols} symbols of both markets for the first time",
    ": connected": "{event} (the simulator)",
    " is out": "{event}, seen first at {code}: the market is swept",
    " is complete": "{event}: {found} symbols of this market show it, {missing} missing",
}
"""How a line of the log ends, and what it means to a newcomer."""


@dataclass
class _Stage:
    """What was shown so far, and how much of it each reader has seen."""

    console: Console
    bar: Progress
    began: float
    entries: int = 0
    rows: int = 0
    symbols: set[str] = field(default_factory=set)
    deliveries: int = 0
    refused: int = 0
    watched: int = 0
    out: asyncio.Event = field(default_factory=asyncio.Event)
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    revised: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def filled(self) -> str:
        """How much history the subscriber was given."""
        return f"{len(self.symbols)} symbols, {self.rows:,} rows"

    @property
    def without(self) -> str:
        """Why those are not all that are watched."""
        return f"{self.watched - len(self.symbols)} of the {self.watched} have no short interest"

    def say(self, text: str, style: str = "") -> None:
        """Print a line, with the seconds since the demo began."""
        seconds = asyncio.get_running_loop().time() - self.began
        self.bar.console.print(f"[dim]{seconds:4.1f} s[/]  {text}", style=style or None)


def demo() -> None:
    """Show the service at work for half a minute, against a simulated OpenD."""
    sys.exit(main())


def main() -> int:
    """Run the demo; 0 also after Ctrl-C."""
    code = 0

    async def whole() -> None:
        nonlocal code
        code = await _demo()

    sys.stdout.write(_INTRODUCTION + "\n")
    asyncio.run(until_signalled(whole()))
    name = _command()
    sys.stdout.write(_FURTHER.format(poller=name, space=" " * len(name)))
    return code


def _command() -> str:
    """Return what to type for `poller` here."""
    script = Path(sys.executable).with_name("poller")
    if shutil.which("poller") == str(script):
        return "poller"
    return os.path.relpath(script) if script.is_relative_to(Path.cwd()) else str(script)


async def _demo() -> int:
    console = show.console()
    bar = Progress(
        TextColumn("        "), BarColumn(), TextColumn("{task.description}"), console=console
    )
    stage = _Stage(console, bar, asyncio.get_running_loop().time())
    with tempfile.TemporaryDirectory(prefix="poller-demo-") as state, bar:
        async with _receiver(stage) as settings, _service(state, settings) as service:
            tasks = [
                asyncio.create_task(_subscribe(Path(state), stage), name="subscriber"),
                asyncio.create_task(_milestones(service, stage), name="log"),
                asyncio.create_task(_until_seen(stage), name="end"),
            ]
            with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C: the same end, only earlier
                await asyncio.wait(tasks, timeout=LONGEST, return_when=asyncio.FIRST_COMPLETED)
            ended = service.returncode
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if ended is None:
            stage.say(f"the service was told to stop and left with exit code {service.returncode}")
    verdict = "every signature verified" if not stage.refused else f"{stage.refused} refused"
    console.print(
        f"{stage.entries:,} events read by the subscriber, {stage.deliveries:,} of them taken by "
        f"the webhook receiver: {verdict}."
    )
    return service.returncode or 0


async def _until_seen(stage: _Stage) -> None:
    """Wait for a complete release and a revision, and a moment more."""
    await stage.complete.wait()
    await stage.revised.wait()
    await asyncio.sleep(_LAST_LOOK)


@contextlib.asynccontextmanager
async def _service(
    state: str, settings: Mapping[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the service while the block lasts; its log is read from its stderr."""
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("POLLER_")},
        "POLLER_STATE_DIR": state,
        "POLLER_CONFIG": os.devnull,
        "POLLER_WEB__PORT": "0",
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "poller", "run", "--simulate"),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is the demo's: the service is told to stop, once
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_FINISH):
            await process.communicate()


@contextlib.asynccontextmanager
async def _receiver(stage: _Stage) -> AsyncIterator[dict[str, str]]:
    """Run an endpoint as a user would write it: verify, answer. Yields its configuration."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    signer = Webhook(secret)

    async def take(request: web.Request) -> web.Response:
        try:
            signer.verify(await request.text(), dict(request.headers))
        except WebhookVerificationError:
            stage.refused += 1
            return web.Response(status=401)
        stage.deliveries += 1
        return web.Response(status=204)

    application = web.Application()
    application.router.add_post("/", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield {
            "POLLER_WEBHOOKS__0__NAME": "demo",
            "POLLER_WEBHOOKS__0__URL": f"http://127.0.0.1:{port}/",
            "POLLER_WEBHOOKS__0__SECRET": secret,
        }
    finally:
        await runner.cleanup()


async def _subscribe(state: Path, stage: _Stage) -> None:
    """Read the stream from its beginning; what fills the history is counted, the rest is shown."""
    task = stage.bar.add_task("history", total=None, start=False)
    async with Embedded(state).running() as url, contextlib.AsyncExitStack() as stack:
        store = RedisStore(url, "short-interest")
        stack.push_async_callback(store.close)
        after = "0"
        while True:
            for entry in await store.read(after, count=200, block=1.0):
                after = entry.id
                await _show(entry, stage)
            filling = stage.entries == stage.rows
            stage.bar.update(task, description=f"history: {stage.filled}", visible=filling)


async def _show(entry: Entry, stage: _Stage) -> None:
    stage.entries += 1
    kind = entry.fields["type"]
    if kind == "short_interest.backfilled":
        stage.rows += 1
        stage.symbols.add(entry.fields["code"])
        return
    if stage.entries == stage.rows + 1:
        stage.say(f"history: {stage.filled}, each an event ({stage.without}); now what is new")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HEADLINE):
                await stage.out.wait()
    stage.bar.console.print("        ", show.entry_line(entry), sep="")
    if kind == "short_interest.revised":
        stage.revised.set()


async def _milestones(service: asyncio.subprocess.Process, stage: _Stage) -> None:
    """Say what the log says in this demo's words; every warning as it stands. Ends with it."""
    stage.say("poller run --simulate")
    while service.stderr is not None and (line := await service.stderr.readline()):
        try:
            told = json.loads(line)
        except ValueError:  # it could not even begin to log
            stage.say(line.decode(errors="replace").rstrip(), "red")
            continue
        if told["level"] != "info":
            stage.say(told["event"], "yellow")
        elif (text := _translated(told)) is not None:
            stage.say(text)
            _remember(told, stage)


def _remember(told: Mapping[str, Any], stage: _Stage) -> None:
    """Take note of a milestone that something waits for."""
    stage.watched = told.get("symbols", stage.watched)
    if told["event"].endswith(" is out"):
        stage.out.set()
    if told["event"].endswith(" is complete"):
        stage.complete.set()


def _translated(told: Mapping[str, Any]) -> str | None:
    """Return what a line of the log means to somebody who sees it for the first time."""
    fits = (words for ending, words in _WORDS.items() if told["event"].endswith(ending))
    words = next(fits, None)
    return None if words is None else words.format(**told)
