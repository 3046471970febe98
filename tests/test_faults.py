"""Every fault as the operator sees it: one line while it lasts, its end, and a row in the docs.

Faults of OpenD, of endpoints and of the surroundings befall one service after the other; those of a
Redis under the service are in `test_failures`, refusals at the start in `test_servers`.
"""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from Crypto.PublicKey import RSA
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from poller.model import Code
from poller.simulator import World
from tests.feed import publish
from tests.machine import at_most
from tests.opend import Simulator
from tests.receiver import OK, SECRET, Receiver, status
from tests.service import (
    Service,
    entries,
    later,
    now,
    poller,
    simulator,
    store_of,
    until,
    with_rows,
)

TENCENT, GOOD, OTHER = Code("HK.00700"), Code("HK.00005"), Code("HK.00941")
WORLD = World(named=(GOOD, OTHER), history=20)
DOCUMENT = Path("docs/operating.md").read_text(encoding="utf-8")


def rows() -> list[str]:
    """Return what the log says by the table in the docs; every row has something to do about it."""
    _, _, rest = DOCUMENT.partition("| the log says | do |\n|---|---|\n")
    says = re.findall(r"(?m)^\| (`[^|]*`) \| [^|]+ \|$", rest.partition("\n\n")[0])
    return [each for cell in says for each in re.findall("`([^`]*)`", cell)]


def fits(says: str, line: str) -> bool:
    """Tell whether a line is what a row of the table says; `…` and NAME stand for anything."""
    parts = re.split(r"…|\bNAME\b", says)
    return re.search(".*".join(map(re.escape, parts)), line) is not None


def is_documented(line: str) -> bool:
    """Tell whether the docs say what to do about a line."""
    return any(fits(says, line) for says in rows())


@dataclass
class Watched:
    """A service, whose log shows each fault once while it lasts, and its end."""

    service: Service

    async def suffers(
        self,
        subject: str,
        reason: str,
        *,
        mend: Callable[[], object] = lambda: None,
        ends: str = "recovered",
    ) -> None:
        """Wait for the line of a fault, mend it, and wait for its end."""
        said, ended = f"{subject}: {reason}", f"{subject}: {ends}"
        before = self.service.told(ended)
        await self.service.said(said)
        told = mend()
        if isinstance(told, Awaitable):
            await told
        await until(lambda: self.service.told(ended) > before)
        self._said_once(subject, reason)

    async def suffered(self, subject: str, reason: str) -> None:
        """Wait for the end of a fault that may have ended before."""
        await self.service.said(f"{subject}: recovered")
        self._said_once(subject, reason)

    def _said_once(self, subject: str, reason: str) -> None:
        told = self.service.told_of(subject)
        (line,) = {each for each in told if each.startswith(f"{subject}: {reason}")}
        assert is_documented(line), line


def show_new_day(opend: Simulator) -> None:
    """Let OpenD report one more day of HK.00700."""
    shown = opend.world.records(TENCENT, now())
    new = later(shown[0], days=1, aggregated_short=(shown[0].shares or 0) + 1)
    opend.world = with_rows(opend.world, TENCENT, (new, *shown))


@contextlib.asynccontextmanager
async def running(service: Service) -> AsyncIterator[Watched]:
    """Run a service, which must end well."""
    await service.start()
    try:
        yield Watched(service)
    finally:
        assert await service.stop() == 0


async def test_opend_and_the_surroundings(tmp_path: Path) -> None:
    """Absent, cut, mute, too frequent, a code refused, an answer that cannot be trusted.

    The page's port taken, a watchlist file gone or wrong. After all of it a new day is published.
    """
    opend, watchlist = simulator(WORLD), tmp_path / "list"
    await opend.start()
    await opend.close()
    watchlist.write_text(f"{GOOD}\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = Service(tmp_path, opend.port, TENCENT)
        service.settings = {
            "POLLER_WATCHLIST__FILES": str(watchlist),
            "POLLER_WEB__PORT": str(port),
        }
        async with contextlib.AsyncExitStack() as stack, running(service) as watched:
            stack.push_async_callback(opend.close)
            gateway = f"OpenD 127.0.0.1:{opend.port}"
            await watched.suffers("page", f"127.0.0.1 port {port}: ", mend=taken.close)
            await watched.suffers(
                gateway, "nobody listens", mend=lambda: opend.start(port=opend.port)
            )
            async with store_of(service) as store:
                await entries(store, 10, TENCENT)
                await entries(store, 10, GOOD)
                faults = opend.faults
                faults.cut = 50
                await watched.suffers(gateway, "the connection was lost")
                faults.too_frequent_next = 1
                await service.said("another program spends requests of this account")
                faults.errors[GOOD] = "该股票已退市"
                await watched.suffers(GOOD, "OpenD refuses it", mend=faults.errors.clear)
                faults.wrong_market = True

                def right() -> None:
                    faults.wrong_market = False

                await watched.suffers(f"answers of {gateway}", "3 looks in a row", mend=right)
                file = f"watchlist file {watchlist}"
                watchlist.unlink()
                await watched.suffers(
                    file, "No such file", mend=lambda: watchlist.write_text(f"{GOOD}\n")
                )
                watchlist.write_text(f"SH.600519\n{GOOD}\n")
                await watched.suffers(
                    file, f"{watchlist}:1: ", mend=lambda: watchlist.write_text(f"{GOOD}\n")
                )
                show_new_day(opend)
                await entries(store, 11, TENCENT)
                # told when nobody else has spent for ten periods: by now, maybe
                await watched.suffered("budget of account main", "too many requests")


def key(folder: Path, name: str) -> Path:
    """Write a private key as OpenD's operator makes one."""
    path = folder / name
    path.write_bytes(RSA.generate(1024).export_key())  # noqa: S505  the SDK can use no longer one
    return path


async def test_no_login_and_no_answer(tmp_path: Path) -> None:
    """Login refused, mute, another key, no key, mute later: each is named once, and recovers."""
    ours, theirs = key(tmp_path, "ours"), key(tmp_path, "theirs")
    keys = (ours, ours, ours, theirs, None)
    rate: Any = {"requests": 30, "period": 1.0}
    gateways = [
        Simulator(WORLD, **rate, rsa_private_key=k.read_bytes() if k else None) for k in keys
    ]
    silent, refused, mute, *others = gateways
    silent.faults.silence = True
    refused.faults.refuse_login, mute.faults.mute_login = "未登录", True
    settings: dict[str, str] = {}
    for n, gateway in enumerate(gateways):
        await gateway.start()
        settings |= {
            f"POLLER_OPEND__{n}__PORT": str(gateway.port),
            f"POLLER_OPEND__{n}__RSA_PRIVATE_KEY_FILE": str(ours),
        }
    async with contextlib.AsyncExitStack() as stack:
        service = Service(tmp_path, silent.port, f"{TENCENT},{GOOD},{OTHER}", settings)
        await stack.enter_async_context(running(service))
        names = [f"OpenD 127.0.0.1:{gateway.port}" for gateway in gateways]
        await service.said(f"{names[0]}: connected")
        lines = ["3 requests in a row without an answer", *["it accepts connections"] * 4]
        await until(lambda: all(map(service.told, map(": ".join, zip(names, lines, strict=True)))))
        silent.faults.silence = mute.faults.mute_login = False
        refused.faults.refuse_login = None
        for gateway in others:
            await gateway.close()
            mended = Simulator(WORLD, **rate, rsa_private_key=ours.read_bytes())
            await mended.start(port=gateway.port)
            stack.push_async_callback(mended.close)
        for name, line in zip(names, lines, strict=True):
            await service.said(f"{name}: recovered")
            (told,) = {e for e in service.told_of(name) if e.startswith(f"{name}: {line}")}
            assert is_documented(told)
    for gateway in gateways:
        await gateway.close()


def hook(name: str, url: str) -> dict[str, str]:
    """Return the keys of an endpoint."""
    return {"name": name, "url": url, "secret": SECRET, "events": "backfilled,reported"}


async def all_listen(url: str, endpoints: int) -> None:
    """Wait until so many endpoints have their place in the stream."""
    async with Redis.from_url(url) as client, at_most():
        while True:
            with contextlib.suppress(ResponseError):  # no stream yet
                if len(await client.xinfo_groups("short-interest")) == endpoints:
                    return
            await asyncio.sleep(0.02)


def leads_inside(name: str) -> bool:
    """Tell whether the system resolves a name to this machine."""
    try:
        return socket.gethostbyname(name).startswith("127.")
    except OSError:
        return False


async def test_endpoints(tmp_path: Path) -> None:
    """Nobody there, 503, 410, 429, TLS that fails, a name that leads nowhere or inside.

    Each endpoint is told once, and recovers where the receiver does. The name that leads inside is
    the machine's own; where that does not resolve it is left out (`test_webhook` has its own).
    """
    answers: dict[str, bytes] = {"/503": status(503), "/410": status(410), "/429": status(429)}
    receiver = Receiver(lambda seen: answers.get(seen.path, OK))
    nobody = Receiver()
    async with nobody.running():
        pass
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    stranger = await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0, ssl=context)
    async with receiver.running(), stranger:
        strange = stranger.sockets[0].getsockname()[1]
        plain = f"http://127.0.0.1:{receiver.port}"
        expected = {
            "gone": ("fails: no connection: Connection refused", nobody.url),
            "broken": ("fails: 503", f"{plain}/503"),
            "leaving": ("disabled: it answered 410", f"{plain}/410"),
            "busy": ("fails: 429", f"{plain}/429"),
            "tls": ("fails: its certificate is not accepted", f"https://127.0.0.1:{strange}/"),
            "nowhere": ("fails: its name does not resolve", "https://nowhere.invalid/"),
        }
        if leads_inside(socket.gethostname()):
            inside = f"https://{socket.gethostname()}/"
            expected["inside"] = ("fails: no connection: ", inside)
        service = Service(tmp_path, 1, TENCENT, role="deliver")
        service.settings = {
            f"POLLER_WEBHOOKS__{n}__{key}".upper(): value
            for n, (name, (_, url)) in enumerate(expected.items())
            for key, value in hook(name, url).items()
        }
        async with running(service), store_of(service) as store:
            await service.said("ready")
            await all_listen(store.url, len(expected))
            await publish(store, TENCENT, range(1, 3))
            for name, (reason, _) in expected.items():
                await service.said(f"webhook {name}: {reason}")
            answers.clear()
            async with nobody.running():
                code, _, problem = await poller(service, "webhook", "enable", "leaving")
                assert (code, problem) == (0, "")
                for name in ("gone", "broken", "leaving"):
                    await service.said(f"webhook {name}: recovered")
            for name in expected:
                told = service.told_of(f"webhook {name}")
                assert all("recovered" in line or is_documented(line) for line in told), told
