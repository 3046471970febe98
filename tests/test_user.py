"""What OpenD says of its user, through the unmodified SDK: hints for words and order, no facts."""

import asyncio
import contextlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from poller.cli.check import run_checks
from poller.cli.stores import Failure
from poller.gateway.logins import logins_of, shared_logins
from poller.gateway.user import User, user_of
from poller.markets import Market
from poller.markets.us import UNITED_STATES
from poller.model import Code
from poller.schedule.evidence import UNPROVEN, Refusal
from poller.schedule.release import Intervals
from poller.schedule.rights import FIRST_PAUSE, HINT_PAUSE, Rights
from poller.schedule.schedule import Answered, Probe, Schedule
from poller.settings.config import load
from poller.simulator import Proto
from poller.simulator.replies import NO_RIGHT, Login
from tests.machine import at_most
from tests.opend import Simulator, quote_rights
from tests.service import entries, simulator
from tests.test_rights_end_to_end import HK, LEARNED, TIMED_OUT, US, WORLD, asked, running, told

LEVEL1, LEVEL2 = 2, 3
NO_US = Login(7, {"hk": LEVEL2, "us": NO_RIGHT})
ALL = Login(7, {"hk": LEVEL2, "us": LEVEL1})
NOW = datetime(2026, 5, 4, tzinfo=UTC)
AAPL, TENCENT = Code("US.AAPL"), Code("HK.00700")


def test_the_answer_is_read() -> None:
    """Fields that are absent or unknown are left out; words of the vendor are made printable."""
    assert user_of({}) == user_of({"user_id": "N/A", "hk_qot_right": "N/A"}) == User()
    us = user_of({"user_id": 7, "hk_qot_right": "LV2", "us_qot_right": "NO"})
    assert (us.login, str(us)) == ("7", "HK LV2, US none")
    assert us.without == {UNITED_STATES}
    assert str(user_of({"hk_qot_right": "\x1b[1m"})) == r"HK \x1b[1m"
    assert "accept it" in user_of({"is_need_agree_disclaimer": True}).trouble
    assert "install the newest" in user_of({"update_type": "FORCE"}).trouble
    assert not user_of({"update_type": "ADVICE", "is_need_agree_disclaimer": "N/A"}).trouble


@dataclass(frozen=True)
class Gateway:
    """A gateway of this account, logged in as this user."""

    account: str
    login: str


def test_only_accounts_of_one_user_are_told() -> None:
    """Neither gateways of one account, nor users that are not known."""
    assert not shared_logins([Gateway("main", "7"), Gateway("main", "7"), Gateway("other", "8")])
    assert not shared_logins([Gateway("main", ""), Gateway("other", "")])
    three = [Gateway("main", "7"), Gateway("a", "8"), Gateway("b", "7")]
    same = "[[opend]] 1 (account main) and 3 (account b) are logged in as the same user"
    assert shared_logins(three).startswith(same)
    assert logins_of([*three, Gateway("b", "")], "b")() == {"7"}


def test_a_hint_changes_the_order_and_no_more() -> None:
    """The doubtful market comes last, one symbol at a time, until one of them is answered."""
    rights, plan = Rights(), Schedule(Intervals(*[timedelta(seconds=20)] * 3))
    plan.watch([AAPL, TENCENT, Code("HK.00005")])
    rights.hint("main", {UNITED_STATES}, NOW)
    found = []
    for _ in range(3):
        probe = plan.next(NOW, rights.access("main", NOW))
        assert isinstance(probe, Probe)
        found.append(probe.code)
        plan.record(probe.code, Answered(None), NOW)
    assert found == [TENCENT, Code("HK.00005"), AAPL]
    rights.asked("main", AAPL, NOW)
    assert rights.access("main", NOW).full == {UNITED_STATES}
    rights.ended("main", AAPL)
    rights.answered("main", AAPL, NOW)
    access = rights.access("main", NOW)
    assert not access.full | access.doubtful | access.resting.keys()


def test_a_right_that_came_back_is_tried_at_once() -> None:
    """Only if OpenD had said that it was missing; a hint that stays the same changes nothing."""

    def trial_at(*hints: set[Market], told: timedelta) -> datetime:
        rights = Rights()
        for code in (AAPL, Code("US.MSFT")):
            rights.refused("main", Refusal(code, "no right", explicit=True), NOW, NOW)
        for hint in hints:
            rights.hint("main", hint, NOW + told)
        return rights.access("main", NOW + told).resting[UNITED_STATES]

    late = timedelta(seconds=5)
    assert trial_at({UNITED_STATES}, set(), told=late) == NOW + late
    assert trial_at(set(), set(), told=late) == NOW + FIRST_PAUSE
    assert trial_at({UNITED_STATES}, {UNITED_STATES}, told=late) == NOW + FIRST_PAUSE


async def test_a_hint_that_is_true(tmp_path: Path) -> None:
    """It is in the words; a refusal is still waited for; the right that comes back is tried."""
    async with simulator(WORLD) as opend:
        opend.faults.no_right["US"], opend.login = TIMED_OUT, NO_US
        async with running(tmp_path, [opend], [*US[:20], *HK]) as (service, store):
            await service.said(LEARNED)
            assert service.told("OpenD itself says that it has none") == 1
            assert 0 < asked(opend, "US") <= 2 * UNPROVEN  # the hint may come after the first polls
            opend.faults.no_right.clear()
            opend.login = ALL
            opend.notify(quote_rights(LEVEL2, LEVEL1))
            async with at_most(HINT_PAUSE.total_seconds() / 2, "the trial of a right"):
                while not service.told(f"{LEARNED}: that is over"):
                    await asyncio.sleep(0.1)
            await entries(store, len(HK) + 20)


async def test_a_hint_that_is_wrong(tmp_path: Path) -> None:
    """What is answered is published, whatever OpenD says of rights; nothing is told."""
    async with simulator(WORLD) as opend:
        opend.login = NO_US
        async with running(tmp_path, [opend], [*US[:20], *HK]) as (service, store):
            await entries(store, len(HK) + 20)
            assert not service.told("no right")


@pytest.mark.parametrize("text", ["", "未知的协议", "NN_ProtoRet_SvrFailed"])
async def test_an_opend_that_does_not_tell(tmp_path: Path, text: str) -> None:
    """A refusal, or silence, of this call changes nothing; nor does a login without a user."""
    async with simulator(WORLD) as opend:
        opend.faults.unserved[Proto.USER_INFO] = text
        opend.login = Login(0, {})
        async with running(tmp_path, [opend], HK) as (service, store):
            await entries(store, len(HK))
            asked_for = [seen.proto for seen in opend.seen]
            assert asked_for.count(Proto.USER_INFO) == asked_for.count(Proto.INIT_CONNECT)
            assert not [line for line in service.log() if line["level"] != "info"]


@pytest.mark.parametrize(
    ("waiting", "said"),
    [
        (Login(disclaimer=True), "OpenD waits for the disclaimer: accept it"),
        (Login(update=2), "no longer accepts this version of OpenD: install the newest one"),
    ],
    ids=["disclaimer", "update"],
)
async def test_what_it_waits_for_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], waiting: Login, said: str
) -> None:
    """In log, page, `/readyz` and `check`, with the cure; polling goes on; the end is told."""
    async with simulator(WORLD) as opend:
        opend.login = waiting
        async with running(tmp_path / "home", [opend], HK[:3]) as (service, store):
            await service.said(f"state of OpenD 127.0.0.1:{opend.port}: ")
            await entries(store, 3)
            for path in ("/", "/readyz", "/api/status"):
                await told(service, path, said)
            assert service.told(said) == 1
            found = await checked(tmp_path, opend, capsys)
            assert re.search(rf"OpenD \S+ +failed +.*{re.escape(said)}", found)
            opend.login = ALL
            opend.kick()
            await service.said(f"state of OpenD 127.0.0.1:{opend.port}: recovered")


async def test_check_shows_the_rights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of each market that OpenD names; and which accounts are logged in as one user."""
    async with simulator(WORLD) as opend, simulator(WORLD) as other:
        opend.faults.no_right["US"], opend.login = TIMED_OUT, NO_US
        other.login = ALL
        found = await checked(tmp_path, opend, capsys, other)
        assert re.search(r"OpenD \S+ +ok +logged in .*, quote rights: HK LV2, US none", found)
        assert re.search(r"OpenD \S+ +ok +logged in .*, quote rights: HK LV2, US LV1", found)
        assert re.search(r"accounts +warning +\[\[opend\]\] 1 \(account main\) and 2 ", found)


async def checked(
    folder: Path,
    opend: Simulator,
    capsys: pytest.CaptureFixture[str],
    *others: Simulator,
) -> str:
    """Return what `poller check` prints about these gateways, each of an account of its own."""
    file = folder / "poller.toml"
    tables = [f"[[opend]]\nport = {opend.port}\n"]
    tables += [f'[[opend]]\nport = {o.port}\naccount = "other"\n' for o in others]
    codes = f'[watchlist]\ncodes = ["{HK[0]}", "{US[0]}"]\n'
    file.write_text(f'state_dir = "{folder}"\n{"".join(tables)}{codes}', encoding="utf-8")
    with contextlib.suppress(Failure):
        await run_checks(load(file, {}), file)
    return capsys.readouterr().out
