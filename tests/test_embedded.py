"""The embedded server under the service: killed, orphaned, shared, out of space, kept private."""

import asyncio
import contextlib
import fcntl
import os
import resource
import shutil
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import TextIO

import pytest
from redis.asyncio import Redis

from poller import subscribe
from poller.cli.stores import Failure, store_of
from poller.errors import StoreDown, StoreMisfit
from poller.model import Code
from poller.settings.config import Config
from poller.simulator import World
from poller.store.embedded import START_LIMIT, Embedded
from poller.store.redisstore import RedisStore
from poller.store.statedir import (
    Unsafe,
    distrust,
    make_private,
    make_socket_directory,
    read_password,
)
from poller.store.store import Entry
from poller.telemetry.log import configure
from tests.machine import at_most, scaled
from tests.opend import Simulator
from tests.service import (
    Service,
    entries,
    later,
    now,
    simulator,
    until,
    with_rows,
)

TENCENT = Code("HK.00700")
RESTARTED = "the embedded server was gone: started again"


@pytest.fixture(autouse=True)
def stderr_of_its_own() -> Iterator[None]:
    """Let a test point the log to the stderr that is captured for it alone."""
    configure()
    yield
    configure()


@pytest.fixture
async def opend() -> AsyncIterator[Simulator]:
    """An OpenD that knows HK.00700 with the ten rows of the vendor's page."""
    async with simulator(World()) as running:
        yield running


@pytest.fixture
async def service(tmp_path: Path, opend: Simulator) -> AsyncIterator[Service]:
    """A service that watches HK.00700, not started; stopped at the end."""
    made = Service(tmp_path, opend.port, TENCENT)
    yield made
    if made.process is not None and made.process.returncode is None:
        await made.stop()


def show_new_day(opend: Simulator) -> None:
    """Let OpenD report one more day."""
    rows = opend.world.records(TENCENT, now())
    new = later(rows[0], days=1, aggregated_short=(rows[0].shares or 0) + 1)
    opend.world = with_rows(opend.world, TENCENT, (new, *rows))


async def server_of(state_dir: Path) -> int:
    """Return the process id of the server of a state directory."""
    client = Redis.from_url(Embedded(state_dir).url)
    try:
        return int((await client.info("server"))["process_id"])
    finally:
        await client.aclose()


def alive(process: int) -> bool:
    """Tell whether a process runs; one that has ended and was not waited for does not."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def once_each(found: list[Entry]) -> bool:
    """Tell whether every event is on the stream once."""
    ids = [entry.fields["id"] for entry in found]
    return len(ids) == len(set(ids))


@contextlib.asynccontextmanager
async def reader(state_dir: Path) -> AsyncIterator[RedisStore]:
    """Connect to a running server without keeping it in existence."""
    store = RedisStore(Embedded(state_dir).url, "short-interest")
    try:
        yield store
    finally:
        await store.close()


async def test_a_killed_server_comes_back(service: Service, opend: Simulator) -> None:
    """Kill -9 of the server: said once, recovered once, nothing lost or doubled.

    What was refused meanwhile is told as well, unless the next server answers before.
    """
    await service.start()
    await service.said("polling")
    async with reader(service.state_dir) as store:
        await entries(store, 10)
        os.kill(await server_of(service.state_dir), SIGKILL)
        show_new_day(opend)
        await service.said(RESTARTED)
        found = await entries(store, 11)
        assert once_each(found)
    await until(lambda: service.told_of("redis")[-1:] in ([], ["redis: recovered"]))
    assert service.told(RESTARTED) == 1
    told = service.told_of("redis")
    assert len(told) == len({*told})
    assert service.told("standing by") == 0


HOLD = """
import asyncio, sys
from pathlib import Path
from poller.store.embedded import Embedded
async def hold():
    async with Embedded(Path(sys.argv[1])).running():
        print("running", flush=True)
        await asyncio.Event().wait()
asyncio.run(hold())
"""
"""Holds the server of a state directory until it is killed."""


async def test_an_orphan_is_adopted_and_shared(service: Service, opend: Simulator) -> None:
    """A server that outlives its program serves the next two, and ends with the last."""
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLD, str(service.state_dir)), stdout=asyncio.subprocess.PIPE
    )
    assert command.stdout is not None
    await command.stdout.readline()
    server = await server_of(service.state_dir)
    command.kill()
    await command.wait()
    await service.start()
    await service.said("polling")
    other = Service(service.state_dir, opend.port, TENCENT)
    await other.start()
    await service.said("standing by")
    assert await server_of(service.state_dir) == server
    async with reader(service.state_dir) as store:
        await entries(store, 10)
        assert await service.stop() == 0
        show_new_day(opend)
        assert once_each(await entries(store, 11))
    assert await other.stop() == 0
    await until(lambda: not alive(server))


async def test_a_server_that_is_just_ending_is_followed_by_another(tmp_path: Path) -> None:
    """Its lock outlives its socket for a moment: a program that comes then starts one right after.

    The lock is held here as the ending server holds it; the gate shows that the comer has met it.
    """
    await come_and_go(tmp_path)
    folder = tmp_path / "redis"
    with (folder / "gate.lock").open() as gate, (folder / "server.lock").open() as lock:
        await until(lambda: takes(lock))
        coming = asyncio.create_task(come_and_go(tmp_path))
        while takes(gate):
            fcntl.flock(gate, fcntl.LOCK_UN)
            await asyncio.sleep(0)
        fcntl.flock(lock, fcntl.LOCK_UN)
        async with at_most(START_LIMIT / 2):
            await coming


async def test_who_only_reads_its_stream_keeps_no_server_up(tmp_path: Path) -> None:
    """A client of somebody else's and a subscriber: the last program ends the server under them."""
    async with contextlib.AsyncExitStack() as reading:
        async with Embedded(tmp_path).running() as own:
            server, url = await server_of(tmp_path), own.partition("?")[0]
            events = await reading.enter_async_context(subscribe(url))
            foreign = await reading.enter_async_context(Redis.from_url(url))
            waiting = [
                asyncio.ensure_future(anext(events)),
                asyncio.ensure_future(foreign.xread({"short-interest": "$"}, block=0)),
            ]
            async with Redis.from_url(url) as looking, at_most(what="both readers"):
                while [each["cmd"] for each in await looking.client_list()].count("xread") < 2:
                    await asyncio.sleep(0.02)
            await come_and_go(tmp_path)
            assert alive(server)  # there is a program still
        await until(lambda: not alive(server))
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_server_in_use_is_never_ended(tmp_path: Path) -> None:
    """However many come and go at once, what one has is there until it leaves."""
    kept = list[int]()

    async def visit() -> None:
        async with Embedded(tmp_path).running() as url, Redis.from_url(url) as redis:
            for _ in range(5):
                kept.append(await redis.incr("visits"))
                await asyncio.sleep(0)

    for _ in range(5):
        await asyncio.gather(*(visit() for _ in range(6)))
    assert sorted(kept) == [*range(1, 151)]


async def come_and_go(state_dir: Path) -> None:
    """Use the server of a state directory, and leave."""
    async with Embedded(state_dir).running():
        pass


def takes(file: TextIO) -> bool:
    """Take the lock of a file, if nobody holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def test_a_full_disk_is_waited_out(service: Service, opend: Simulator) -> None:
    """A server that cannot write: said once, recovered alone, nothing lost or doubled.

    A limit on the size of its files stands for the full disk: it needs no rights, and the server
    meets the same failed write.
    """
    unlimited = resource.RLIM_INFINITY
    await service.start()
    await service.said("polling")
    async with reader(service.state_dir) as store:
        await entries(store, 10)
        server = await server_of(service.state_dir)
        resource.prlimit(server, resource.RLIMIT_FSIZE, (0, unlimited))
        await service.said("redis: MISCONF")
        show_new_day(opend)
        resource.prlimit(server, resource.RLIMIT_FSIZE, (unlimited, unlimited))
        assert once_each(await entries(store, 11))
    await service.said("redis: recovered")  # a part that asks less often may be the last to notice
    assert [service.told(f"redis: {text}") for text in ("MISCONF", "recovered", "")] == [1, 1, 2]
    assert service.told(RESTARTED) == 0


async def test_nothing_leaves_the_state_directory(opend: Simulator, tmp_path: Path) -> None:
    """Home, working and temporary directory stay empty; the password stays the owner's own."""
    outside = [tmp_path / name for name in ("home", "work", "tmp")]
    for directory in (*outside, tmp_path / "state"):
        directory.mkdir()
    home, work, temporary = outside
    service = Service(tmp_path / "state", opend.port, TENCENT, directory=work)
    service.settings = {"HOME": str(home), "TMPDIR": str(temporary)}
    await service.start()
    await service.said("published")
    password = service.state_dir / "redis" / "password"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert stat.S_IMODE(password.parent.stat().st_mode) == 0o700
    secret = password.read_bytes()
    assert len(secret) > 30
    shown = [*command_lines(), (service.state_dir / "log").read_bytes()]
    assert not any(secret in text for text in shown)
    assert await service.stop() == 0
    assert [list(directory.iterdir()) for directory in outside] == [[], [], []]


def command_lines() -> Iterator[bytes]:
    """Return the command line of every process there is."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield path.read_bytes()


async def test_a_path_too_long_for_a_socket(opend: Simulator, tmp_path: Path) -> None:
    """A state directory deeper than a socket's path may be works, and nothing is left of it."""
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    service = Service(deep, opend.port, TENCENT)
    await service.start()
    await service.said("published")
    socket = Embedded(deep).socket
    assert socket.exists()
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    async with reader(deep) as store:
        assert len(await entries(store, 10)) == 10
    assert await service.stop() == 0
    assert not socket.parent.exists()


async def test_a_server_about_to_end_is_followed_by_another(tmp_path: Path) -> None:
    """Who finds the lock busy, and then nobody who answers, starts a server when it is free."""
    embedded, joined = Embedded(tmp_path), asyncio.Event()
    async with embedded.running():
        pass  # the folder exists now

    async def join() -> None:
        async with embedded.running():
            joined.set()

    held = os.open(tmp_path / "redis" / "server.lock", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    joining = asyncio.create_task(join())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(joined.wait(), 0.2)
    os.close(held)
    async with at_most(10):  # far less than a start may take
        await joining


async def test_a_command_does_not_wait_for_a_server_that_is_frozen(tmp_path: Path) -> None:
    """It is refused as soon as one question has no answer, also while the service waits for it."""
    config = Config(state_dir=tmp_path)
    embedded = Embedded(tmp_path)
    async with embedded.running():
        process = await server_of(tmp_path)
        os.kill(process, SIGSTOP)
        try:
            waiting = asyncio.create_task(embedded.ensure())
            async with asyncio.timeout(scaled(9)):
                with pytest.raises(Failure, match="Redis does not answer: the embedded server in"):
                    await anext(aiter(_opened(config)))
        finally:
            os.kill(process, SIGCONT)
        await waiting


async def _opened(config: Config) -> AsyncIterator[RedisStore]:
    async with store_of(config, existing=True) as store:
        yield store


async def test_a_directory_that_is_taken_away(tmp_path: Path) -> None:
    """It is reported as a server that is away, with path and reason; none is left running."""
    embedded = Embedded(tmp_path)
    async with embedded.running():
        process = await server_of(tmp_path)
        shutil.rmtree(tmp_path / "redis")
        with pytest.raises(StoreDown, match=rf"{tmp_path}/redis: No such file or directory"):
            await embedded.ensure()
    assert not alive(process)


async def test_who_is_stopped_while_the_server_comes_up_leaves_none(tmp_path: Path) -> None:
    """A cancelled start ends with its cancellation, and takes its server along."""
    began = asyncio.Event()

    class Slow(Embedded):
        async def _answers(self) -> bool:
            """Be asked before the server listens."""
            began.set()
            return False

    async def join() -> None:
        async with Slow(tmp_path).running():
            pass

    joining = asyncio.create_task(join())
    await began.wait()
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining
    assert lock_is_free(tmp_path)  # by now, as its directory may be removed next


def lock_is_free(state_dir: Path) -> bool:
    """Tell whether no server of a state directory lives."""
    with (state_dir / "redis" / "server.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


KILLED = """
import asyncio, os, signal, sys
from itertools import count
from pathlib import Path
from poller.store.embedded import Embedded
left = int(sys.argv[2])
def strike(frame, event, _):
    global left
    name = frame.f_code.co_name
    starts = frame.f_code.co_filename.endswith(("embedded.py", "statedir.py")) and (
        "_start" in name or name == "write_password"
    )
    left -= starts and event == "line"
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return strike if starts or event == "call" else None
async def hold():
    async with Embedded(Path(sys.argv[1])).running():
        pass
sys.settrace(strike)
asyncio.run(hold())
"""
"""Holds a server, and is killed at a line of its start: the first, the second and so on."""


async def test_a_start_killed_at_any_line(tmp_path: Path) -> None:
    """Kill -9 of a program that starts the server, at each line: the next one gets a server.

    None is left that keeps the directory and answers elsewhere, or without the password.
    """

    async def struck(line: int) -> bool:
        state_dir = tmp_path / str(line)
        command = (sys.executable, "-c", KILLED, str(state_dir), str(line))
        process = await asyncio.create_subprocess_exec(*command)
        ended = await process.wait()
        assert ended in {-SIGKILL, 0}
        async with at_most(20), Embedded(state_dir).running():
            await server_of(state_dir)
        await until(lambda: lock_is_free(state_dir))
        return ended == -SIGKILL

    killed = 0
    for first in count(1, 4):
        found = await asyncio.gather(*map(struck, range(first, first + 4)))
        killed += sum(found)
        if not all(found):  # it was through before that many lines
            break
    assert killed > 20


def planted_elsewhere(tmp_path: Path) -> Path:
    """Return a file that somebody lets one of ours lead to."""
    target = tmp_path / "precious"
    target.write_text("keep me", encoding="utf-8")
    return target


@pytest.mark.parametrize("name", ["gate.lock", "server.lock", "server.log"])
async def test_a_link_is_not_followed(tmp_path: Path, name: str) -> None:
    """What it leads to keeps every byte; the link is named, and the server does not start."""
    target, folder = planted_elsewhere(tmp_path), tmp_path / "redis"
    folder.mkdir(mode=0o700)
    (folder / name).symlink_to(target)
    with pytest.raises(StoreMisfit, match=rf"state_dir: {folder / name} is a symbolic link"):
        await come_and_go(tmp_path)
    assert target.read_text(encoding="utf-8") == "keep me"
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(StoreMisfit, match=rf"{folder / name} is no regular file"):
        await come_and_go(tmp_path)
    (folder / name).unlink()
    await come_and_go(tmp_path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_text(""),
        lambda file: file.write_text("short"),
        lambda file: file.write_bytes(b"\x00" * 43),
        lambda file: file.write_text("two words of some thirty characters"),
        lambda file: (file.unlink(), file.symlink_to("/etc/hostname")),
        lambda file: [file.unlink(), os.mkfifo(file)],  # type: ignore[func-returns-value]
        lambda file: file.with_name("password.new").write_text("left by a kill"),
        lambda file: file.unlink(),
    ],
    ids=("empty", "short", "zeros", "words", "link", "fifo", "half-written", "absent"),
)
async def test_an_unusable_password_is_replaced(
    tmp_path: Path, spoil: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    """As a loss of power leaves it, or somebody plants it: the data stays, and a line says so."""
    configure()
    async with Embedded(tmp_path).running() as url, Redis.from_url(url) as redis:
        await redis.set("kept", "yes")
    file = tmp_path / "redis/password"
    before = file.read_text(encoding="ascii")
    spoil(file)
    assert capsys.readouterr().err == ""
    async with Embedded(tmp_path).running() as url, Redis.from_url(url) as redis:
        assert await redis.get("kept") == b"yes"
    assert len(file.read_text(encoding="ascii")) == 43
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not file.is_symlink()
    said = capsys.readouterr().err
    replaced = before != file.read_text(encoding="ascii")
    assert said.count("another password now") == (replaced and said != "")


async def test_a_password_spoiled_while_the_server_runs(tmp_path: Path) -> None:
    """Connected programs go on, even after the server is killed; new ones get an error at once."""
    embedded, file = Embedded(tmp_path), tmp_path / "redis/password"
    async with embedded.running() as url:
        for text in ("", "another-password-of-thirty-two-characters"):
            file.write_text(text, encoding="ascii")
            assert not await embedded.ensure()
            with pytest.raises(StoreMisfit, match=r"a server runs in .*end the programs that use"):
                await come_and_go(tmp_path)
        async with Redis.from_url(url) as redis:
            os.kill(int((await redis.info("server"))["process_id"]), SIGKILL)
        await until(lambda: lock_is_free(tmp_path))
        assert await embedded.ensure()
        await come_and_go(tmp_path)
        assert embedded.url == url == Embedded(tmp_path).url


async def test_what_is_open_to_others_is_closed_and_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """State, server and password; the next start has nothing to say."""
    configure()
    await come_and_go(tmp_path)
    folder = tmp_path / "redis"
    opened = {tmp_path: 0o775, folder: 0o777, folder / "password": 0o644}
    for path, mode in opened.items():
        path.chmod(mode)
    await come_and_go(tmp_path)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    for line, (path, mode) in zip(said, opened.items(), strict=True):
        assert f"state_dir: {path} " in line
        assert f"({mode:o})" in line
    assert [stat.S_IMODE(path.stat().st_mode) for path in opened] == [0o755, 0o700, 0o600]
    await come_and_go(tmp_path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("sticky", [False, True])
def test_a_way_that_others_can_turn(tmp_path: Path, *, sticky: bool) -> None:
    """A directory open to all on the way is said each time, unless like /tmp it is guarded."""
    tmp_path.chmod(0o1777 if sticky else 0o777)
    said = make_private(tmp_path / "state")
    assert [line for line in said if f"chmod o-w {tmp_path}" in line] == said
    assert bool(said) is not sticky
    (tmp_path / "link").symlink_to(tmp_path / "state")  # one's own link is one's own business
    assert bool(make_private(tmp_path / "link")) is not sticky


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
async def test_what_others_have_made_is_not_taken(tmp_path: Path) -> None:
    """Their link and their directory in one like /tmp, their password, their socket's directory."""
    configure()
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    link = shared / "state"
    link.symlink_to(tmp_path)
    os.chown(link, 4711, 4711, follow_symlinks=False)
    with pytest.raises(Unsafe, match=rf"{link} is a symbolic link of user 4711"):
        make_private(link)
    theirs = shared / "theirs"
    theirs.mkdir()
    os.chown(theirs, 4711, 4711)
    for state in (theirs, theirs / "state"):
        with pytest.raises(Unsafe, match=rf"{theirs} belongs to user 4711, in a directory that is"):
            make_private(state)
    os.chown(shared, 4711, 4711)
    make_private(link)  # whoever owns the directory has every right to
    await come_and_go(tmp_path)
    file = tmp_path / "redis/password"
    planted = file.read_text(encoding="ascii")
    os.chown(file, 4711, 4711)
    with pytest.raises(Unsafe, match="belongs to user 4711"):
        read_password(file)
    await come_and_go(tmp_path)
    assert read_password(file)[0] != planted
    with pytest.raises(Unsafe, match=r"is not user root's alone"):
        make_socket_directory(link, tmp_path / "redis")


def test_whose_directory_is_trusted(tmp_path: Path) -> None:
    """One's own and root's; root trusts a user's, unless anybody may have put it there."""
    found = tmp_path.stat()
    assert distrust(found, found.st_uid, others=True) is None
    theirs = os.stat_result((*found[:4], 4711, *found[5:]))
    assert distrust(theirs, 4712, others=False) is not None
    assert distrust(theirs, 0, others=False) is None
    assert "belongs to user 4711: run it as that user" in (distrust(theirs, 0, others=True) or "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_directory_is_refused() -> None:
    """Also where nobody but its owner can have made it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # pytest's own is closed to others
        Path(name).chmod(0o755)
        state = Path(name) / "state"
        for each in (state, state / "redis"):
            each.mkdir()
            os.chown(each, 4712, 4712)
        os.seteuid(4711)
        try:
            with pytest.raises(Unsafe, match=f"{state} belongs to user 4712: run it as that user"):
                make_private(state)
        finally:
            os.seteuid(0)


def closed(folder: Path, *, linked: bool) -> Path:
    """Make a state directory of root's; `linked`: as systemd links that of a user it made."""
    folder.chmod(0o755)
    private, state = folder / "private", folder / "state"
    private.mkdir(mode=0o700)
    place = private / "poller" if linked else state
    (place / "redis").mkdir(parents=True)
    place.chmod(0o700)
    if linked:
        state.symlink_to(place)
    return state


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("linked", [False, True])
async def test_a_state_that_is_closed_to_its_reader_is_said_to_be(*, linked: bool) -> None:
    """As a service's is for an ordinary user: to make it writable would be the wrong cure."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        state = closed(Path(name), linked=linked)
        os.seteuid(4711)
        try:
            with pytest.raises(StoreMisfit, match=f"{state} is closed to this user.*redis.url"):
                await come_and_go(state)
        finally:
            os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root looks in on other users")
async def test_root_looks_in_on_a_service_and_starts_none(tmp_path: Path) -> None:
    """As `poller tail` beside a unit: it joins the server, and leaves no file of its own."""
    configure()
    state = tmp_path / "state"
    folder = state / "redis"
    for each in (state, folder):
        each.mkdir(mode=0o700)
        os.chown(each, 4711, 4711)
    with pytest.raises(StoreMisfit, match="only that user can start it"):
        await come_and_go(state)
    assert list(folder.iterdir()) == []
    os.chown(folder, 0, 0)
    async with Embedded(state).running():
        for each in (folder, *folder.iterdir()):
            os.chown(each, 4711, 4711)
        async with Embedded(state).running() as url, Redis.from_url(url) as redis:
            assert await redis.ping()
        assert {path.stat().st_uid for path in folder.iterdir()} == {4711}


async def test_a_directory_in_the_passwords_place(tmp_path: Path) -> None:
    """What cannot be replaced is named."""
    (tmp_path / "redis/password").mkdir(parents=True)
    with pytest.raises(StoreMisfit, match=r"redis/password is a directory: remove it"):
        await come_and_go(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["a b", 'qu"ote', "back\\slash", "li\nne", "50% $x #1", "簡體", os.fsdecode(b"\xff\xfe")],
)
async def test_a_directory_of_any_name(tmp_path: Path, name: str) -> None:
    """The server's settings and the URL hold it as it is."""
    state = tmp_path / name
    async with Embedded(state).running() as url, Redis.from_url(url) as redis:
        await redis.set("kept", "yes")
    assert (state / "redis/appendonlydir").is_dir()
