"""The log: short on a quiet day, one JSON object a line, without a secret; the SDK's kept small."""

import asyncio
import contextlib
import errno
import io
import json
import re
import signal
import subprocess
import sys
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.delivery.target import as_sent
from poller.errors import ConfigError, StoreDown
from poller.markets.hk import HkRecord
from poller.model import Code, Event, EventType, Vintage
from poller.settings.config import Config, load
from poller.simulator import Proto, World
from poller.telemetry.bridge import Bridge
from poller.telemetry.journal import Journal
from poller.telemetry.log import configure, log_defect
from poller.telemetry.observe import (
    Fact,
    Happened,
    Published,
    Recovered,
    Rejected,
    Trouble,
    UpToDate,
    forgotten,
    redis_trouble,
)
from tests.opend import Simulator
from tests.receiver import SECRET
from tests.service import Service, entries, poller, store_of, until

CODE = Code("HK.00700")
PASSWORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=4)


async def test_a_quiet_day_is_a_short_log(tmp_path: Path) -> None:
    """Hundreds of polls without news add no line; an outage adds two however long it is."""
    async with Simulator(World(), requests=100, period=1.0) as opend:
        service = Service(tmp_path, opend.port, CODE)
        service.settings = {
            "POLLER_SCHEDULE__DUE": "0.02",
            "POLLER_SCHEDULE__IDLE": "0.02",
            "POLLER_SCHEDULE__LATE": "0.02",
            "POLLER_BUDGET__REQUESTS": "100",
        }
        await service.start()
        async with store_of(service) as store:
            await entries(store, 10)
        polls = 200
        await until(lambda: sum(one.proto == Proto.SHORT_INTEREST for one in opend.seen) > polls)
        opend.faults.drop_accepts = True
        opend.faults.kick()
        await service.said("the connection was lost")
        opend.faults.drop_accepts = False
        await service.said("recovered")
        assert await service.stop() == 0
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    said = [json.loads(line)["event"] for line in lines]
    outage = [text for text in said if text.startswith(("OpenD", CODE))]
    assert len(outage) <= 6  # connected, lost, recovered, connected; a poll that was cut, recovered
    others = [text for text in said if text not in outage]
    assert others[:3] == ["configuration", "store", "ready"]
    assert others[-2:] == ["stopping", "stopped"]
    assert sorted(others[3:-2]) == ["page", "polling", "published", "watchlist"]


async def test_a_crash_says_where(tmp_path: Path) -> None:
    """A fault of native code, which no handler catches, leaves the places of threads in the log."""
    service = Service(tmp_path, 1, CODE)
    await service.start()
    await service.said("ready")
    assert service.process is not None
    service.process.send_signal(signal.SIGSEGV)
    assert await service.process.wait() == -signal.SIGSEGV
    told = (tmp_path / "log").read_text(encoding="utf-8")
    assert "Segmentation fault" in told
    assert "most recent call first" in told
    async with store_of(service):
        pass  # the last to leave takes the server along


def test_a_page_without_descriptors_is_no_defect() -> None:
    """The line for connections that cannot be accepted names the fix, and has no traceback."""
    with contextlib.redirect_stderr(io.StringIO()) as log:
        configure(secrets=())
        message = "socket.accept() out of system resource"
        problem = OSError(errno.EMFILE, "Too many open files")
        loop = asyncio.new_event_loop()
        Bridge().loop_failed(loop, {"message": message, "exception": problem})
        loop.close()
    line = json.loads(log.getvalue())
    assert line["level"] == "warning"
    assert "too many open files" in line["event"].lower()
    assert "LimitNOFILE" in line["event"]
    assert "exception" not in line


def written(config: Config, defect: str, *facts: Happened | Trouble | Rejected) -> str:
    """Return what is written, under this configuration, about facts and about a defect."""
    with contextlib.redirect_stderr(io.StringIO()) as log:
        configure(secrets=config.secrets())
        journal = Journal()
        for fact in facts:
            journal(fact)
        try:
            raise ValueError(defect)
        except ValueError as problem:
            log_defect(problem)
    return log.getvalue()


@settings(max_examples=40)
@given(password=PASSWORDS, key=st.binary(min_size=24, max_size=64))
def test_no_line_and_no_repr_holds_a_secret(password: str, key: bytes) -> None:
    """Whoever puts a secret into a fact or an error: what is written does not hold it."""
    password = f"hunter2{password}"  # so that it is no word of the log
    secret = f"whsec_{b64encode(key).decode()}"
    guard = f"hunter2-{password}"
    url = (
        f"redis+sentinel://user:{quote(password, safe='')}@127.0.0.1:1/primary"
        f"?sentinel_password={quote(guard, safe='')}"
    )
    hook = f"https://example.org/{quote(password, safe='')}"
    config = Config.model_validate(
        {
            "redis": {"url": url},
            "webhooks": [{"name": "desk", "url": hook, "secret": secret}],
        }
    )
    told = written(
        config,
        f"{url!r} {password!r} {secret!r}",
        Happened("a", (("where", url),)),
        Trouble("redis", f"{password} is wrong, and so are {secret} and {guard}"),
        Rejected((hook,)),
    )
    shown = told + repr(config) + str(config)
    assert "hunter2" not in shown
    assert secret not in shown
    for line in told.splitlines():
        json.loads(line)


class Terminal(io.StringIO):
    """What a person looks at."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


def test_a_person_reads_words() -> None:
    """On a terminal a line is time, level, event and what belongs to it; a trace stands below."""
    with contextlib.redirect_stderr(Terminal()) as screen:
        configure(level="warning", secrets=["hunter2"])
        journal = Journal()
        journal(Happened("never shown"))
        journal(Trouble("redis", "hunter2 is wrong"))
        log_defect(ValueError("odd"))
    trouble, defect, *trace = re.sub("\x1b\\[[0-9]+m", "", screen.getvalue()).splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:]{8} warning redis: \[secret\] is wrong", trouble)
    assert "error   a defect of the poller, please report it: ValueError fingerprint=" in defect
    assert trace == ["ValueError: odd"]


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_a_person_chooses_colours(environment: dict[str, str], *, coloured: bool) -> None:
    """NO_COLOR that is not empty switches them off, and so does a terminal without any."""
    with contextlib.redirect_stderr(Terminal()) as screen:
        configure(environment=environment)
        Journal()(Happened("ready", (("port", 1),)))
    assert ("\x1b[" in screen.getvalue()) == coloured


def test_a_symbol_below_the_threshold_has_no_figures_in_the_log() -> None:
    """Hong Kong's 0 is "not reportable": neither it nor its change is written as a number."""
    none, some = (HkRecord(None, "2026-11-13", n, 0.5, None, None) for n in (0, 7))
    with contextlib.redirect_stderr(io.StringIO()) as log:
        configure(level="info", secrets=[])
        for record in (none, some):
            vintage = Vintage(record, 0, datetime(2026, 11, 20, tzinfo=UTC))
            event = Event(EventType.REPORTED, CODE, vintage, previous=None, change=None)
            Journal()(Published(CODE, (event,)))
    first, second = map(json.loads, log.getvalue().splitlines())
    assert first["below_threshold"] is True
    assert not {"shares", "change"} & set(first)
    assert second["shares"] == 7


def test_a_symbol_taken_off_the_list_did_not_recover() -> None:
    """The end of its trouble is logged once, as what it is."""
    with contextlib.redirect_stderr(io.StringIO()) as log:
        configure(level="info", secrets=[])
        journal = Journal()
        journal(Trouble(CODE, "OpenD refuses it"))
        for fact in forgotten(CODE, "no longer watched"):
            journal(fact)
    told = [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    assert told == [f"{CODE}: OpenD refuses it", f"{CODE}: no longer watched"]


def test_reasons_in_turn_are_told_once_each() -> None:
    """A cause with two reasons is two lines until it ends, and is logged again when it returns."""
    with contextlib.redirect_stderr(io.StringIO()) as log:
        configure()
        journal = Journal()
        for _ in range(2):
            for reason in ("cut", "silent") * 20:
                journal(Trouble("redis", reason))
            journal(Recovered("redis"))
            journal(Recovered("redis"))
    lines = [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    assert lines == ["redis: cut", "redis: silent", "redis: recovered"] * 2


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2/x@127.0.0.1:1/0",
        "redis://:hunter2#x@127.0.0.1:1/0",
        "redis://:hunter2?x@127.0.0.1:1/0",
        "redis://[hunter2@127.0.0.1/0",
        "redis://:hunter2℀@127.0.0.1/0",
        "redis://127.0.0.1:1/0?hunter2=1",
        "redis://127.0.0.1:1/0?db=hunter2",
        "http://:hunter2@127.0.0.1",
    ],
)
def test_a_refused_url_is_not_shown(url: str) -> None:
    """A password with a character that ends it early is reported as such, without a piece of it."""
    with pytest.raises(ConfigError) as caught:
        load(None, {"POLLER_CONFIG": "/dev/null", "POLLER_REDIS__URL": url})
    assert str(caught.value).startswith("POLLER_REDIS__URL: ")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("verb", ["check", "tail"])
async def test_no_command_shows_a_secret(tmp_path: Path, verb: str) -> None:
    """A server that does not answer is reported without its password."""
    url = "redis://user:hunter2@127.0.0.1:1/0"
    service = Service(tmp_path, 1, CODE, {"POLLER_REDIS__URL": url})
    code, out, err = await poller(service, verb)
    assert code == 1
    assert "127.0.0.1:1" in out + err
    assert "hunter2" not in out + err


TALK = """
import asyncio, os, pathlib, sys
from poller.gateway.sdk import Sdk
asyncio.run(Sdk(pathlib.Path(sys.argv[1])).load())
from futu.common.ft_logger import logger
for n in range(30_000):
    logger.info("never written")
    logger.warning(f"{n} " + "x" * 100)
os._exit(0)
"""


def test_the_sdks_log_is_bounded(tmp_path: Path) -> None:
    """Whatever the SDK warns of and however often it is started: two files of a megabyte."""
    for _ in range(2):
        subprocess.run([sys.executable, "-c", TALK, str(tmp_path)], check=True)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["futu.log", "futu.log.1"]
    assert sum(path.stat().st_size for path in files) <= 2_000_000
    last = (tmp_path / "sdk/futu.log").read_text(encoding="utf-8").splitlines()[-1]
    assert "29999 xxx" in last
    assert "never" not in last


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        (
            "https://us3r:pa55W0rd%21x@example.org/webhook/tok-9f8e7d/x?k=q%2Fv+S3CRET%3D42",
            ("tok-9f8e7d", "q%2Fv+S3CRET%3D42", "q/v S3CRET=42", "pa55W0rd!x", "pa55W0rd%21x"),
        ),
        ("https://example.org/webhook/onlysmallletterssecret", ("onlysmallletterssecret",)),
        ("slack://T0KENA/B0KENB/CCtokenCC/#chan", ("T0KENA", "B0KENB", "CCtokenCC")),
    ],
)
def test_parts_of_a_webhooks_url_are_in_no_line(url: str, secrets: tuple[str, ...]) -> None:
    """A library's URL is logged without its password, even decoded or in parts."""
    webhook = {"name": "desk", "url": url}
    if url.startswith("https"):
        webhook["secret"] = SECRET
    config = Config.model_validate({"webhooks": [webhook]})
    form = as_sent(url) if url.startswith("https") else url  # as aiohttp shows it
    with contextlib.redirect_stderr(io.StringIO()) as log:
        configure(secrets=config.secrets())
        bridge = Bridge()
        told = f"Unclosed response of webhook desk: {' '.join(secrets)} {form}"
        bridge.report("error", "library", told, told, ValueError(told))
    line = log.getvalue()
    assert "of webhook desk: " in line
    for secret in secrets:
        assert secret not in line


@pytest.mark.parametrize(
    ("target", "shown", "hidden"),
    [
        ("hook/redir2?k=s3cret-s3cret", "webhook redir2: fails: 302", "s3cret-s3cret"),
        ("%72edir2/redir2-s3cret", "webhook redir2: fails: 302", "redir2-s3cret"),
        ("h?code=HK.00700&k=HK.00700s", "HK.00700: refused", "HK.00700s"),
        ("h?code=HK%2E00700", "HK.00700: refused", "code=HK%2E00700"),
        ("acc0unt/names-pace", "account acc0unt of names-pace", "/acc0unt/names-pace"),
        ("HK.007001/US.aapl-1", "HK.00700: refused", "US.aapl-1"),
    ],
)
def test_what_the_log_is_about_is_named(target: str, shown: str, hidden: str) -> None:
    """A name or code that also is in a webhook's URL is no secret; what only begins so is one."""
    url = f"https://example.org/{target}"
    config = Config.model_validate(
        {
            "webhooks": [{"name": "redir2", "url": url, "secret": SECRET}],
            "opend": [{"account": "acc0unt"}],
            "redis": {"namespace": "names-pace", "url": "redis://:p4ss@h/0"},
        }
    )
    text = written(config, f"{shown}; {hidden} {url} {SECRET} p4ss")
    assert shown in text
    for secret in (hidden, url, SECRET, "p4ss"):
        assert secret not in text


def test_an_outage_of_one_part_is_told_although_others_have_answers() -> None:
    """Each of its attempts fails later than another part's succeeds, as with a slow write."""
    heard: list[Fact] = []
    time = 0.0
    observe = UpToDate(heard.append, lambda: time)
    for began in (0.0, 5.0, 10.0, 5000.0):
        problem = StoreDown("no answer in time")
        problem.asked_at, time = began, began + 4
        observe(Recovered("redis"))
        time = began + 5
        observe(redis_trouble(problem))
    assert [each.asked_at for each in heard if isinstance(each, Trouble)] == [5.0, 10.0]


def test_one_outage_is_told_once_however_late_a_part_notices() -> None:
    """A failed attempt older than the last answer is no news; one that began after it is."""
    heard: list[Fact] = []
    observe = UpToDate(heard.append, lambda: 10)

    def failed(asked_at: float | None) -> Trouble:
        problem = StoreDown("nobody listens")
        problem.asked_at = asked_at
        return redis_trouble(problem)

    facts = failed(5), Recovered("redis"), failed(9), Trouble("page", "away"), failed(11)
    for fact in (*facts, failed(None)):
        observe(fact)
    passed = [each.asked_at for each in heard if isinstance(each, Trouble)]
    assert passed == [5, None, 11, None]
    assert Recovered("redis") in heard
