"""`poller check`: a row for everything, whatever became of the rest."""

import asyncio
import errno
import os
import pty
import re
import ssl
import sys
from pathlib import Path
from unittest.mock import ANY

import pytest
import trustme
from redis.asyncio import Redis

from poller.cli.check import run_checks
from poller.cli.stores import Failure
from poller.delivery.client import reason_of
from poller.delivery.outbox import OutboxKeys
from poller.errors import ConfigError
from poller.gateway.sdk import Sdk
from poller.model import Code
from poller.settings.config import load
from poller.simulator import Proto, World
from poller.store.embedded import Embedded
from poller.store.redisstore import RedisStore
from tests.nodes import free_port
from tests.receiver import SECRET
from tests.service import Service, poller, simulator


async def told(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return the rows of a check that fails: what was tried → its state and what was found."""
    file = folder / "poller.toml"
    place = "" if "state_dir" in text else f'state_dir = "{folder}"\n'
    file.write_text(f"{place}{text}", encoding="utf-8")
    with pytest.raises(Failure):
        await run_checks(load(file, {}), file)
    lines = capsys.readouterr().out.splitlines()[1:]
    rows = [re.split(r"  +", line.rstrip(), maxsplit=1) for line in lines]
    assert len(rows) == len({name for name, _ in rows})
    return {name: re.sub(r"  +", " | ", rest) for name, rest in rows}


async def test_a_refused_redis_keeps_nothing_from_being_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """OpenD and the webhooks have rows of their own; a name nobody knows is said as such."""
    async with simulator(World()) as opend:
        rows = await told(
            tmp_path,
            f'redis.url = "redis://127.0.0.1:{free_port()}"\nbudget.requests = 60\n'
            f"[[opend]]\nport = {opend.port}\n"
            f'[[webhooks]]\nname = "desk"\nurl = "https://name.invalid/"\nsecret = "{SECRET}"\n',
            capsys,
        )
    assert rows["configuration"] == f"ok | {tmp_path}/poller.toml: 2 codes in it"
    assert "too high | 60 requests in 30 s: OpenD allows 30 in 30 s" in rows["budget"]
    assert "failed | Redis does not answer: nobody listens" in rows["redis"]
    assert "ok | logged in" in rows[f"OpenD 127.0.0.1:{opend.port}"]
    assert rows["webhook desk"] == "failed | its name does not resolve"


async def test_an_unusable_key_and_a_disabled_endpoint_are_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rest is tried; an endpoint has one row, with the command that enables it."""
    async with Embedded(tmp_path).running() as url, Redis.from_url(url) as redis:
        state = OutboxKeys("short-interest", "desk").state
        await redis.hset(state, "disabled", "it answered 410")
        rows = await told(
            tmp_path,
            f'[[opend]]\nrsa_private_key_file = "{tmp_path}/none"\n'
            f'[[webhooks]]\nname = "desk"\nurl = "http://127.0.0.1:1/"\nsecret = "{SECRET}"\n',
            capsys,
        )
    assert re.fullmatch(rf"ok \| Valkey [\d.]+ in {tmp_path}", rows["redis (embedded)"])
    assert rows["OpenD"].startswith("failed | opend.rsa_private_key_file: ")
    fix = "fixed? poller webhook enable desk"
    assert rows["webhook desk"] == f"failed | disabled: it answered 410; {fix}"


def names_in(folder: Path) -> list[str]:
    """Return what is in a directory."""
    return sorted(path.name for path in folder.iterdir())


async def test_on_a_terminal_it_says_what_it_waits_for(tmp_path: Path) -> None:
    """Without OpenD it would be silent for seconds; into a file or pipe it says nothing of it."""
    above, below = pty.openpty()
    async with simulator(World()) as opend:
        service = Service(tmp_path, opend.port, "HK.00700")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "poller", "check"),
            env=service.environment(),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=below,
        )
        os.close(below)
        assert await process.wait() == 0
        assert await poller(service, "check") == (0, ANY, "")
    told = os.read(above, 1000).decode()
    os.close(above)
    assert told == f"poller: waiting for OpenD 127.0.0.1:{opend.port}, 8 s at most\r\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root looks in on other users")
async def test_root_leaves_no_log_of_the_sdk_in_a_services_state(tmp_path: Path) -> None:
    """A file of root's would keep the service from writing its own."""
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 4711, 4711)
    sdk = Sdk(state)
    await sdk.load()
    sdk.close()
    assert names_in(state) == []


async def test_what_it_spent_stays_on_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The service that is started next on this state must not spend the same requests again."""
    state, file = tmp_path / "state", tmp_path / "poller.toml"
    async with simulator(World()) as opend:
        file.write_text(f'watchlist.codes = ["HK.00700"]\n[[opend]]\nport = {opend.port}\n')
        await run_checks(load(file, {}), file)
    assert "new: nothing was there" in capsys.readouterr().out
    async with Embedded(state).running() as url:
        store = RedisStore(url, "short-interest")
        assert await store.ledger.spent("main", period=60) == 1
        await store.close()


async def test_every_place_is_shown_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new state directory is told as that, which in the wrong place it would be."""
    (tmp_path / "hk.txt").write_text("HK.00700\nHK.00005\n")
    lists = 'watchlist.files = ["hk.txt"]\nwatchlist.codes = ["US.AAPL"]\n'
    rows = await told(tmp_path, f"{lists}[[opend]]\nport = 1\n", capsys)
    assert rows["configuration"].endswith(": 1 code in it")
    assert rows["watchlist file"] == f"ok | {tmp_path}/hk.txt: 2 codes"
    assert rows["redis (embedded)"].endswith(f" in {tmp_path}; new: nothing was there")


async def test_what_would_stop_run_is_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stream that is for a simulation, a port where no OpenD speaks, and nothing to watch."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with Embedded(tmp_path).running() as url, simulator(World()) as opend:
        store = RedisStore(url, "short-interest")
        listener = await asyncio.start_server(mute, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        text = f"watchlist.codes = []\n[[opend]]\nport = {port}\n"
        rows = await told(tmp_path, text, capsys)
        assert rows["configuration"].endswith("; it watches only what `poller watch add` has named")
        assert "does [[opend]] name the port of OpenD's API" in rows[f"OpenD 127.0.0.1:{port}"]
        assert "stream" not in rows
        await store.mark.forbid_mixing(simulated=True)
        rows = await told(tmp_path, f"[[opend]]\nport = {opend.port}\n", capsys)
        assert rows["stream"].startswith("failed | the stream short-interest is for what a simul")
        await store.close()
        listener.close()


async def test_why_tls_fails_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown certificate, a server without TLS and one that hangs up are told apart."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    def ended(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with (
        simulator(World()) as opend,
        await asyncio.start_server(ended, "127.0.0.1", 0, ssl=context) as unknown,
        await asyncio.start_server(plain, "127.0.0.1", 0) as without,
        await asyncio.start_server(ended, "127.0.0.1", 0) as gone,
    ):
        servers = {"unknown": unknown, "without": without, "gone": gone}
        rows = await told(
            tmp_path,
            f'redis.url = "redis://127.0.0.1:{free_port()}"\n[[opend]]\nport = {opend.port}\n'
            + "".join(
                f'[[webhooks]]\nname = "{name}"\nsecret = "{SECRET}"\n'
                f'url = "https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"\n'
                for name, server in servers.items()
            ),
            capsys,
        )
    assert rows["webhook unknown"].startswith("failed | no TLS: certificate verify failed: ")
    assert rows["webhook without"].startswith("failed | no TLS: ")
    assert rows["webhook gone"] in {
        "failed | it closed the connection",
        "failed | Connection reset by peer",
        "failed | no TLS: unexpected eof while reading",
    }


WRONG = "no TLS: wrong version number"


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (TimeoutError(), "no answer within 20 s"),
        (TimeoutError(errno.ETIMEDOUT, "x"), "Connection timed out"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"), WRONG),
        (
            ssl.SSLEOFError(8, "EOF in violation of protocol"),
            "no TLS: EOF in violation of protocol",
        ),
        (ConnectionResetError(), "it closed the connection"),
        (OSError(errno.ECONNREFUSED, "x"), "Connection refused"),
        (
            PermissionError(errno.EACCES, "10.0.0.1 is not a public address"),
            "10.0.0.1 is not a public address",
        ),
    ],
    ids=repr,
)
def test_what_is_wrong_with_a_connection(problem: OSError, said: str) -> None:
    """A number of OpenSSL's is not taken for one of the system's, and no text is empty."""
    assert reason_of(problem) == said


async def test_a_state_directory_that_takes_no_log(tmp_path: Path) -> None:
    """Beside a Redis of one's own, too: the key and the fix, no defect."""
    (tmp_path / "file").touch()
    sdk = Sdk(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"state_dir: the SDK's log cannot live in .*writable"):
        await sdk.load()
    sdk.close()


async def test_green_only_if_it_would_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One request for each market: a missing right, a program too old, a lost login are red."""
    world = World(named=(Code("US.AAPL"),))
    async with simulator(world) as opend:
        text = f"[[opend]]\nport = {opend.port}\n"
        name = f"OpenD 127.0.0.1:{opend.port}"
        opend.faults.no_right["US"] = "行情权限不足"
        rows = await told(tmp_path, text, capsys)
        assert rows["HK of account main"] == "ok | HK.00700: newest day 2026-04-30"
        assert rows["US of account main"].startswith("failed | US.AAPL: OpenD says that the acc")
        assert "quote card for US" in rows["US of account main"]
        assert len([one for one in opend.seen if one.proto == Proto.SHORT_INTEREST]) == 2

        opend.faults.no_right = dict.fromkeys(("HK", "US"), "NN_ProtoRet_SvrFailed")
        opend.faults.logged_out = True
        rows = await told(tmp_path, text, capsys)
        assert rows[name].startswith("failed | OpenD is not logged in to the vendor's quote")
        assert "install OpenD 10.6 or later" in rows["HK of account main"]

        opend.faults.program_status = 4, "请输入验证码"
        rows = await told(tmp_path, text, capsys)
        assert "waits for a phone code" in rows[name]
        assert "(请输入验证码)" in rows[name]


async def test_a_market_that_another_account_sees_is_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The account without is told, and nothing is red; a code nobody knows is not, either."""
    world = World(named=(Code("US.AAPL"),))
    async with simulator(world) as first, simulator(world) as second:
        first.faults.no_right["US"] = "No right to subscribe US.AAPL"
        second.faults.errors["HK.00700"] = "未知股票 HK.00700"
        file = tmp_path / "poller.toml"
        file.write_text(
            f'state_dir = "{tmp_path}"\n[[opend]]\nport = {first.port}\n'
            f'[[opend]]\nport = {second.port}\naccount = "other"\n'
        )
        await run_checks(load(file, {}), file)
        out = capsys.readouterr().out
    assert re.search(r"US of account main +no right +US.AAPL", out)
    assert re.search(r"US of account other +ok +US.AAPL: newest day", out)
    assert re.search(r"HK of account other +refused +HK.00700: OpenD refuses it: unknown", out)
    assert "10.11" in out
