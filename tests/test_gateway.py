"""OpenD as it behaves on a bad day, seen through the unmodified SDK by a service of its own."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from Crypto.PublicKey import RSA

from poller.errors import ConfigError, Refused
from poller.model import Code, Page
from poller.polling.budget import Budget
from poller.polling.poll import GRACE
from poller.polling.watchlist import Watchlist
from poller.service.ports import opened
from poller.settings.config import Config
from poller.simulator import Proto, World
from poller.telemetry.observe import Fact, Recovered, Trouble
from tests.machine import at_most, scaled, send
from tests.memorystore import MemoryStore
from tests.nodes import free_port
from tests.opend import Faults, Simulator, Verdict
from tests.service import (
    Service,
    ended,
    entries,
    later,
    now,
    poller,
    simulator,
    store_of,
    until,
    with_rows,
)

TENCENT = Code("HK.00700")
GOOD, OTHER = Code("HK.00005"), Code("HK.00941")
WORLD = World(named=(GOOD, OTHER), history=20)


@pytest.fixture
async def opend() -> AsyncIterator[Simulator]:
    """An OpenD that knows three symbols."""
    async with simulator(WORLD) as running:
        yield running


@pytest.fixture
async def service(tmp_path: Path, opend: Simulator) -> AsyncIterator[Service]:
    """A service that watches HK.00700, not started; stopped at the end."""
    made = Service(tmp_path, opend.port, TENCENT)
    yield made
    if made.process is not None and made.process.returncode is None:
        await made.stop()


def show_new_day(gateways: Iterable[Simulator], code: Code) -> None:
    """Let every OpenD report one more day of a code."""
    for opend in gateways:
        rows = opend.world.records(code, now())
        new = later(rows[0], days=1, aggregated_short=(rows[0].shares or 0) + 1)
        opend.world = with_rows(opend.world, code, (new, *rows))


def key_file(directory: Path, bits: int) -> Path:
    """Write a private key as OpenD's operator makes one."""
    path = directory / f"{bits}.pem"
    path.write_bytes(RSA.generate(bits).export_key())
    return path


async def test_encryption(tmp_path: Path) -> None:
    """With one key file at both ends, rows travel encrypted; the fault-free path of the SDK."""
    key = key_file(tmp_path, 1024)
    world = World()
    async with Simulator(world, requests=30, period=1.0, rsa_private_key=key.read_bytes()) as opend:
        service = Service(tmp_path, opend.port, TENCENT)
        service.settings = {"POLLER_OPEND__RSA_PRIVATE_KEY_FILE": str(key)}
        await service.start()
        async with store_of(service) as store:
            await entries(store, 10)
        assert await service.stop() == 0


async def test_the_key_is_read_once(tmp_path: Path) -> None:
    """Connections share the cipher made at the start; when each made one, the SDK crashed."""
    key = key_file(tmp_path, 1024)
    opend = Simulator(World(), requests=30, period=1.0, rsa_private_key=key.read_bytes())
    async with opend:
        port = opend.port
    service = Service(tmp_path, port, TENCENT)
    service.settings = {"POLLER_OPEND__RSA_PRIVATE_KEY_FILE": str(key)}
    await service.start()
    await service.said("nobody listens")
    key.unlink()
    await opend.start(port=port)
    async with store_of(service) as store:
        await entries(store, 10)
    assert await service.stop() == 0
    await opend.close()


@pytest.mark.parametrize("fault", ["too long", "missing", "no key"])
async def test_an_unusable_key_is_told_in_a_line(service: Service, fault: str) -> None:
    """What the SDK could not use is refused by name before anything is asked, exit code 2."""
    path = service.state_dir / "key.pem"
    match fault:
        case "too long":
            path = key_file(service.state_dir, 2048)
        case "no key":
            path.write_text("rubbish")
    service.settings = {"POLLER_OPEND__RSA_PRIVATE_KEY_FILE": str(path)}
    code, out, err = await poller(service, "run")
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("poller: ")]
    assert "Traceback" not in err
    assert "rsa_private_key_file" in line
    assert str(path) in line


GATEWAYS = 20


@dataclass(frozen=True)
class QuarantinedFigure:
    """What a process holds of the system."""

    threads: int
    descriptors: int


def held(service: Service) -> QuarantinedFigure:
    """Count the threads and open files of a running service."""
    assert service.process is not None
    own = Path(f"/proc/{service.process.pid}")
    return QuarantinedFigure(*(len(list((own / name).iterdir())) for name in ("task", "fd")))


async def suffer(directory: Path, way: str) -> QuarantinedFigure:
    """Let twenty gateways of one service fail once; return what it holds when polling again."""
    faults = Faults(mute_login=way == "mute", refuse_login="未登录" if way == "refused" else None)
    async with contextlib.AsyncExitStack() as stack:
        gateways = [Simulator(World(), faults=faults) for _ in range(GATEWAYS)]
        for gateway in gateways:
            await stack.enter_async_context(gateway)
        service = Service(directory, gateways[0].port, TENCENT)
        service.settings = {
            f"POLLER_OPEND__{n}__PORT": str(gateway.port) for n, gateway in enumerate(gateways)
        }
        await service.start()
        async with at_most():
            for gateway in gateways:
                await gateway.until_seen(1, Proto.INIT_CONNECT)
        faults.mute_login, faults.refuse_login = False, None
        await connected(service, GATEWAYS)
        if way == "kicked":
            faults.kick()
            await connected(service, 2 * GATEWAYS)
        async with store_of(service) as store:
            await entries(store, 10)
            show_new_day(gateways, TENCENT)
            await entries(store, 11)
        result = held(service)
        assert await service.stop() == 0
        text = (directory / "log").read_text(encoding="utf-8")
        assert all(line.startswith("{") for line in text.splitlines())
        return result


async def connected(service: Service, times: int) -> None:
    """Wait until connections were made so many times: a minute is the promise."""
    async with at_most(60, "so many connections"):
        while service.told(": connected") < times:
            await asyncio.sleep(0.1)


async def test_connections_are_rebuilt_and_leave_nothing(tmp_path: Path) -> None:
    """Twenty logins mute, refused or cut off: polling within a minute, no thread or socket more."""
    ways = ("healthy", "mute", "refused", "kicked")
    for way in ways:
        (tmp_path / way).mkdir()
    counts = await asyncio.gather(*(suffer(tmp_path / way, way) for way in ways))
    usual, *others = counts
    for way, count in zip(ways[1:], others, strict=True):
        # the pools of threads and connections differ by a few from run to run
        assert count.threads < usual.threads + GATEWAYS / 2, way
        assert count.descriptors < usual.descriptors + GATEWAYS / 2, way


async def test_codes_and_the_rate_are_refused(service: Service, opend: Simulator) -> None:
    """A delisted code is told once and harms no other; "too frequent" silences a full period."""
    service.codes = f"{TENCENT},{GOOD}"
    period = scaled(2.0)
    service.settings = {"POLLER_BUDGET__PERIOD": str(period)}
    await service.start()
    async with store_of(service) as store:
        await entries(store, 10, TENCENT)
        known = len(await entries(store, 10, GOOD))
        opend.faults.errors[GOOD] = "该股票已退市"
        await service.said(f"{GOOD}: OpenD refuses it")
        show_new_day([opend], TENCENT)
        await entries(store, 11, TENCENT)
        del opend.faults.errors[GOOD]
        show_new_day([opend], GOOD)
        await entries(store, known + 1, GOOD)
        assert service.told(f"{GOOD}: OpenD refuses it") == 1

        opend.faults.too_frequent_next = 1
        await service.said("another program spends requests")
        refused = next(one.at for one in opend.seen if one.verdict is Verdict.TOO_FREQUENT)
        await until(lambda: asked(opend)[-1] > refused + period)
    at = asked(opend)
    # what was already on its way when the refusal came in is not held back
    assert not [moment for moment in at if refused + scaled(0.2) < moment < refused + period]


def asked(opend: Simulator) -> list[float]:
    """Return when requests for short interest arrived."""
    return [one.at for one in opend.seen if one.proto == Proto.SHORT_INTEREST]


async def test_the_watchlist_file_while_running(service: Service, opend: Simulator) -> None:
    """An edit counts at once; a broken line or a vanished file takes no symbol away."""
    path = service.state_dir / "list"
    path.write_text("# mine\n")
    service.settings = {"POLLER_WATCHLIST__FILES": str(path)}
    await service.start()
    async with store_of(service) as store:
        await entries(store, 10)
        path.write_text(f"# mine\n{GOOD}\n")
        known = len(await entries(store, 1, GOOD))
        path.write_text(f"SH.600519\n{GOOD}\n")
        await service.said(f"{path}:1: ")
        path.unlink()
        await service.said("stay watched")
        show_new_day([opend], GOOD)
        await entries(store, known + 1, GOOD)
        path.write_text(f"{OTHER}\n")
        await service.said(f"{path}: recovered")
        await entries(store, 1, OTHER)
    assert service.told("stay watched") == 1


async def test_a_file_that_shrank_while_nobody_ran(service: Service) -> None:
    """What the last run watched is still watched by the next one, for a while."""
    path = service.state_dir / "list"
    path.write_text(f"{GOOD}\n{OTHER}\nHK.09999\n")
    service.settings = {"POLLER_WATCHLIST__FILES": str(path)}
    await service.start()
    async with store_of(service) as store:
        await entries(store, 1, OTHER)
        assert await service.stop() == 0
        path.write_text("")
        await service.start()
        await service.said("watchlist of the last run: it shrank from 4 to 1 codes")


async def test_futu_groups(service: Service, opend: Simulator) -> None:
    """The HK and US codes of a group are polled; others, and a group that is gone, are named."""
    opend.world = replace(WORLD, groups={"desk": (GOOD, "SH.600519")})
    service.settings = {"POLLER_WATCHLIST__FUTU_GROUPS": "gone,desk"}
    await service.start()
    async with store_of(service) as store:
        await entries(store, 1, GOOD)
        await entries(store, 10, TENCENT)
    await service.said("Futu group desk: left out, neither HK nor US: SH.600519")
    await service.said("Futu group gone: ")


class Desk:
    """A gateway that knows one watch group, as long as it is there."""

    name, account, ready = "desk", "main", True
    codes: list[str] | None = None

    async def wait_ready(self) -> None:
        """Return at once."""

    async def page(self, code: Code, key: str | None) -> Page:
        """Know nothing of short interest."""
        raise Refused(f"{code} {key}")

    async def group(self, name: str) -> list[str]:
        """Return the group, or refuse a name OpenD does not know."""
        if self.codes is None:
            raise Refused(f"{name}: no such group")
        return self.codes


async def test_a_wrong_key_is_told_while_redis_is_away(tmp_path: Path) -> None:
    """A start that cannot succeed ends at once, and nothing that began with it runs on."""
    (tmp_path / "key").write_text("none")
    redis = {"url": f"redis://127.0.0.1:{free_port()}"}
    opend = [{"rsa_private_key_file": str(tmp_path / "key")}]
    told = {"state_dir": str(tmp_path), "redis": redis, "opend": opend}
    config = Config.model_validate(told)
    async with at_most():
        with pytest.raises(ConfigError, match="key"):
            async with opened(config, lambda _: None):
                pass
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_group_that_vanishes_keeps_its_symbols() -> None:
    """A group deleted in the app takes nothing off the watchlist; it is told, and then recovers."""
    facts: list[Fact] = []
    store, desk = MemoryStore(time.time), Desk()
    watchlist = Watchlist((), (), ("mine",), store.watchlist, facts.append)
    budget = Budget(store.ledger, "main:groups", "me", requests=10, period=30)

    async def read() -> None:
        told = len(facts)
        task = asyncio.create_task(watchlist.follow_groups([desk], "main", budget))
        async with at_most():
            while len(facts) == told:
                await asyncio.sleep(0)
        task.cancel()

    desk.codes = [GOOD, OTHER]
    await read()
    assert watchlist.current() == (GOOD, OTHER)
    desk.codes = None
    await read()
    assert watchlist.current() == (GOOD, OTHER)
    desk.codes = [OTHER]  # which is believed when it reads so again
    await read()
    assert watchlist.current() == (GOOD, OTHER)
    assert [type(fact) for fact in facts] == [Recovered, Trouble, Recovered]


@pytest.mark.parametrize("silent", [False, True])
async def test_ctrl_c(service: Service, opend: Simulator, *, silent: bool) -> None:
    """SIGINT ends with 0 within 10 s, also while OpenD owes an answer and the SDK hangs in it."""
    await service.start()
    await service.said("published")
    if silent:
        await silence(opend)
    assert service.process is not None
    send(service.process, signal.SIGINT)
    assert await ended(service.process) == 0
    assert service.told("stopped") == 1


async def test_asked_twice_it_leaves_at_once(service: Service, opend: Simulator) -> None:
    """A second SIGTERM does not wait for what is in flight, and says so by its exit code."""
    await service.start()
    await service.said("published")
    await silence(opend)
    process = service.process
    assert process is not None
    async with store_of(service):  # takes the server along that is left behind
        async with at_most(GRACE / 2):  # after all of it, the exit code would be another
            while process.returncode is None:
                send(process, signal.SIGTERM)
                await asyncio.sleep(0.1)
        assert process.returncode == 1


async def silence(opend: Simulator) -> None:
    """Let OpenD answer nothing any more, and wait until a request is lost in it."""
    opend.faults.silence = True
    await until(lambda: opend.seen[-1].verdict is Verdict.SILENT)


class Link:
    """A way to an OpenD that sees how connections end."""

    def __init__(self, port: int) -> None:
        self.ends: list[str] = []  # by the client: "closed" or "reset"
        self._port = port

    @contextlib.asynccontextmanager
    async def laid(self) -> AsyncIterator[int]:
        """Listen while the block runs; yields the port."""
        server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self._port)
        answers = asyncio.create_task(self._carry(back, writer))
        try:
            await self._carry(reader, forth)
            self.ends.append("closed")
        except ConnectionError:
            self.ends.append("reset")
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            for each in (forth, writer):
                each.close()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while piece := await source.read(1 << 16):
            sink.write(piece)
            await sink.drain()


async def test_requests_that_were_given_up_are_not_sent_on(tmp_path: Path) -> None:
    """A connection whose requests got no answer is reset: what has not left yet never arrives.

    A close would leave it to the system, which goes on sending for as long as the link stalls. What
    had left may arrive: where OpenD then counts too many, nobody else is blamed.
    """
    async with simulator(WORLD) as opend:
        opend.faults.silence = True
        link = Link(opend.port)
        async with link.laid() as port:
            service = Service(tmp_path, port, f"{TENCENT},{GOOD},{OTHER}")
            await service.start()
            await service.said("requests in a row without an answer")
            await until(lambda: "reset" in link.ends)
            opend.faults.too_frequent_next = 1
            opend.faults.silence = False
            await service.said("requests that got no answer have arrived late")
            await until(lambda: service.told("published") == 3)
            assert await service.stop() == 0


async def test_a_stalled_link_is_told_before_its_requests_are_given_up(tmp_path: Path) -> None:
    """Not ready some seconds after the last answer; the next answer ends it."""
    async with simulator(WORLD) as opend:
        service = Service(tmp_path, opend.port, TENCENT)
        await service.start()
        await service.said("published")
        opend.faults.silence = True
        await service.said(f"OpenD 127.0.0.1:{opend.port}: no answer for 5 s")
        assert not service.told("requests in a row")
        opend.faults.silence = False
        await until(lambda: service.told(f"OpenD 127.0.0.1:{opend.port}: connected") == 2)
        assert await service.stop() == 0


async def test_what_opend_says_of_itself_is_told(tmp_path: Path) -> None:
    """A login that is missing is named with its cure, once, and its end; polling goes on."""
    async with simulator(WORLD) as opend:
        opend.faults.logged_out = True
        service = Service(tmp_path, opend.port, TENCENT)
        await service.start()
        await service.said(f"state of OpenD 127.0.0.1:{opend.port}: OpenD is not logged in")
        await service.said("published")
        opend.faults.logged_out = False
        opend.kick()  # which is a login, and a look
        await service.said(f"state of OpenD 127.0.0.1:{opend.port}: recovered")
        assert await service.stop() == 0
