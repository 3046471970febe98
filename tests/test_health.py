"""`poller health`: what the page says of itself, as an exit code."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import SecretStr

from poller.cli.health import ask_ready
from poller.cli.runner import CommandFailed
from poller.cli.stores import Failure
from poller.settings.config import Web
from poller.simulator import World
from tests import nodes
from tests.machine import at_most
from tests.nodes import free_port
from tests.service import Service, poller, simulator, until

TOKEN = "t" * 40
MINE = "short-interest"
"""The namespace of the one who asks."""


@asynccontextmanager
async def answering(status: int, body: str) -> AsyncIterator[Web]:
    """Run a server whose every answer this is; yields where it is asked."""

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") not in {None, f"Bearer {TOKEN}"}:
            return web.Response(status=401)
        return web.Response(status=status, text=body)

    application = web.Application()
    application.router.add_get("/readyz", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield Web(port=runner.addresses[0][1])
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (
            503,
            '{"ready": false, "reasons": ["redis: \\u001b]0;x"], "defects": []}',
            "not ready, as",
        ),
        (200, "<html>", "not as the page of the poller"),
        (200, "[" * 10_000, "not as the page of the poller"),
        (200, '{"ready": true}', "not as the page of the poller"),
        (200, "x" * 200_000, "not as the page of the poller"),
        (
            200,
            '{"ready": true, "reasons": [], "namespace": "us\\u001b]"}',
            r"another service, with redis\.namespace us.*has short-interest: .* web\.port",
        ),
        (404, "", "answers 404"),
        (401, "", "refuses the token"),
        (421, "", "answers to localhost only"),
        (429, "", "too many wrong tokens"),
    ],
)
async def test_what_is_not_ready_fails(
    status: int, body: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever answers there; the reasons are printed, and nothing that a terminal obeys."""
    async with answering(status, body) as place:
        with pytest.raises(Failure, match=told):
            await ask_ready(place, MINE)
    assert "\x1b" not in capsys.readouterr().out


async def test_a_port_of_nobodys_choice_cannot_be_asked() -> None:
    """Port 0 is wrong usage; with nobody there, the keys are named."""
    with pytest.raises(CommandFailed, match=r"web\.port: 0"):
        await ask_ready(Web(port=0), MINE)
    async with answering(200, "") as place:
        pass
    with pytest.raises(Failure, match=r"nobody answers at .*web\.host and web\.port"):
        await ask_ready(place, MINE)


@asynccontextmanager
async def saying(words: bytes) -> AsyncIterator[Web]:
    """Run a server that says this, closes then, or waits for the end where it says nothing."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        if not words:
            await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Web(port=server.sockets[0].getsockname()[1])
        await gone.wait()


async def test_what_is_no_page() -> None:
    """Another protocol is named; one that says nothing does not hold the check up."""
    async with saying(b"SSH-2.0-OpenSSH\r\n") as place:
        with pytest.raises(Failure, match="is not HTTP"):
            await ask_ready(place, MINE)
    async with saying(b"") as place:
        with pytest.raises(Failure, match=r"does not answer within 0\.1 s"):
            await ask_ready(place, MINE, limit=0.1)


async def test_the_token_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """Also to an address that stands for all of them."""
    body = '{"ready": true, "reasons": [], "defects": ["webhook desk: stopped"]}'
    async with answering(200, body) as place:
        await ask_ready(
            place.model_copy(update={"token": SecretStr(TOKEN), "host": str(IPv4Address(0))}),
            MINE,
        )
        assert capsys.readouterr().out == "ready\nwebhook desk: stopped\n"
        with pytest.raises(Failure, match="refuses the token"):
            await ask_ready(place.model_copy(update={"token": SecretStr("x" * 40)}), MINE)


async def test_the_page_of_another_namespace_is_not_ours(tmp_path: Path) -> None:
    """Where a second service could not have the port, the first one's page answers."""
    settings = {"POLLER_WEB__PORT": str(free_port()), "POLLER_REDIS__NAMESPACE": "hk"}
    service = Service(tmp_path, 1, "HK.00700", settings)
    await service.start()
    await until(lambda: service.told("page") > 0)
    url_of = {"POLLER_REDIS__NAMESPACE": "us", "POLLER_REDIS__URL_FILE": "only the service's"}
    other = Service(tmp_path, 1, "HK.00700", settings | url_of)
    code, out, err = await poller(other, "health")
    assert (code, out) == (1, "")
    assert "with redis.namespace hk; this configuration has us" in err
    assert (await poller(service, "health"))[1].startswith("not ready\n")
    await service.stop()


async def test_the_page_of_a_service(tmp_path: Path) -> None:
    """Not ready while no OpenD answers; neither webhooks nor lists are read for it."""
    settings = {"POLLER_WEB__PORT": str(free_port())}
    service = Service(tmp_path, 1, "HK.00700", settings)
    await service.start()
    await until(lambda: service.told("page") > 0)
    broken = {"POLLER_WATCHLIST__FILES": "missing.txt", "POLLER_WEBHOOKS__0__SECRET_FILE": "none"}
    asked = Service(tmp_path, 1, "HK.00700", settings | broken)
    code, out, err = await poller(asked, "health")
    assert code == 1
    assert out.startswith("not ready\n")
    assert "127.0.0.1:1" in out
    assert err.startswith("poller: not ready, as http://127.0.0.1:")
    await service.stop()


async def test_a_redis_that_takes_no_writes_is_named(tmp_path: Path) -> None:
    """No report can say so, but the process knows: until it takes them again."""
    with nodes.node(tmp_path / "server") as server:
        settings = {"POLLER_WEB__PORT": str(free_port()), "POLLER_REDIS__URL": server.url}
        async with simulator(World()) as opend:
            service = Service(tmp_path, opend.port, "HK.00700", settings)
            await service.start()
            try:
                await service.said("published")
                server.ask("REPLICAOF", "127.0.0.1", free_port())
                await service.said("redis: READONLY")
                code, out, _ = await poller(service, "health")
                assert code == 1
                assert "redis: READONLY" in out
                server.ask("REPLICAOF", "NO", "ONE")
                await service.said("redis: recovered")
                async with at_most():
                    while (await poller(service, "health"))[0]:
                        await asyncio.sleep(0.1)
            finally:
                await service.stop()


async def test_a_redis_that_is_silent_is_named(tmp_path: Path) -> None:
    """The reason arrives within the time that the command allows."""
    with nodes.node(tmp_path / "server") as server:
        settings = {"POLLER_WEB__PORT": str(free_port()), "POLLER_REDIS__URL": server.url}
        service = Service(tmp_path, 1, "HK.00700", settings)
        await service.start()
        await until(lambda: service.told("page") > 0)
        server.freeze()
        try:
            code, out, _ = await poller(service, "health")
        finally:
            server.thaw()
        assert code == 1
        assert "Redis does not answer" in out
        await service.stop()
