"""Weeks of polling with accounts that may see one market and not another, in virtual time."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from statistics import mean

import pytest

from poller.cli.simulation import Measured, Setting, simulate
from poller.markets.hk import HONG_KONG
from poller.markets.us import UNITED_STATES
from poller.model import Code
from poller.schedule.release import Intervals
from poller.schedule.rights import LONGEST_PAUSE
from poller.simulator.season import Season
from poller.simulator.world import World
from poller.telemetry.observe import MarketRight, Polled, Recovered, Trouble

BEGAN = datetime(2026, 3, 2, tzinfo=UTC)
WEEKS = 4
INTERVALS = Intervals(timedelta(seconds=20), timedelta(minutes=40), timedelta(minutes=5))
TEXTS = (
    "NN_ProtoRet_TimeOut",
    "行情权限不足",
    "No right to subscribe US.{code}",
    "系统繁忙 {code}",
)
HOUR = 3600.0
DAY = 24 * HOUR
LEARNED = "account main has no right to US quotes"

Says = Callable[[str, Code, float], str | None]


def season(made_up: Mapping[str, int]) -> Season:
    """Return weeks of releases of so many symbols."""
    world = World(made_up=made_up, tencent=False, without_rows=0.0, since=BEGAN.date(), history=4)
    return Season(world, BEGAN, WEEKS)


def without_us(text: str, *, since: float = -DAY, until: float = 1e9) -> Says:
    """Let the account `main` say this of US symbols for a while."""

    def says(account: str, code: Code, at: float) -> str | None:
        if account == "main" and code.startswith("US.") and since <= at < until:
            return text.format(code=code.partition(".")[2])
        return None

    return says


def play(
    made_up: Mapping[str, int],
    refusals: Says = lambda *_: None,
    accounts: tuple[str, ...] = ("main",),
) -> Measured:
    """Play the weeks."""
    return simulate(Setting(season(made_up), INTERVALS, accounts, refusals=refusals))


def first_rows(run: Measured) -> list[float]:
    """Return how late the first row of each Hong Kong release was, in seconds."""
    return [min(late) for (market, _), late in run.releases.items() if market is HONG_KONG]


def asked(run: Measured, market: str) -> int:
    """Return how many requests of a market were sent."""
    return sum(count for code, count in run.polls.items() if code.startswith(market))


def told(run: Measured) -> list[str]:
    """Return the troubles that were told, and their ends, of accounts and of gateways."""
    found = list[str]()
    for fact in run.facts:
        if isinstance(fact, Trouble) and not (found and found[-1] == fact.subject):
            found.append(fact.subject)
    return found


@pytest.mark.parametrize("text", TEXTS)
def test_the_other_market_is_as_early_as_alone(text: str) -> None:
    """Twenty symbols beside a hundred without right: the first row, the last, and what it costs.

    Those that were refused until the right was known to be missing are no trouble of their own.
    """
    alone = play({"HK": 20})
    beside = play({"HK": 20, "US": 100}, without_us(text))
    assert mean(first_rows(beside)) <= 1.2 * mean(first_rows(alone))
    assert max(first_rows(beside)) <= 1.2 * max(first_rows(alone))
    assert asked(beside, "US.") <= 0.05 * asked(beside, "HK.")
    assert told(beside) == [LEARNED]
    rights = [fact for fact in beside.facts if isinstance(fact, MarketRight)]
    assert not any(fact.granted for fact in rights)
    ended = {fact.subject for fact in beside.facts if isinstance(fact, Recovered)}
    assert any(subject.startswith("US.") for subject in ended)
    refused = {fact.outcome for fact in beside.facts if isinstance(fact, Polled)}
    assert refused <= {"answered", "failed", "refused"}


def test_another_account_serves_what_one_may_not_see() -> None:
    """Every day of every US symbol is told, as early as by the entitled account alone."""
    made_up = {"US": 12, "HK": 12}
    both = play(made_up, without_us("NN_ProtoRet_TimeOut"), ("main", "other"))
    alone = play(made_up, accounts=("other",))
    assert both.missed == both.doubled == 0
    late = [max(each) for (m, _), each in both.releases.items() if m is UNITED_STATES]
    bound = [max(each) for (m, _), each in alone.releases.items() if m is UNITED_STATES]
    assert len(late) == len(bound) > 0
    assert max(late) <= max(bound) + INTERVALS.due.total_seconds()


@pytest.mark.parametrize("text", TEXTS[:2])
def test_a_right_that_comes_back_is_noticed(text: str) -> None:
    """Within a day at the latest, and everything of the market is told from then on."""
    until = 8 * DAY
    run = play({"HK": 20, "US": 30}, without_us(text, until=until))
    granted = [fact for fact in run.facts if isinstance(fact, MarketRight) and fact.granted]
    assert [(each.account, each.market) for each in granted] == [("main", UNITED_STATES)]
    assert sum(isinstance(f, Recovered) and f.subject == LEARNED for f in run.facts) == 1
    assert run.missed == run.doubled == 0
    for (market, index), late in run.releases.items():
        began = run.season.releases[market][index]
        slack = LONGEST_PAUSE.total_seconds() + max(until - began, 0.0)
        assert max(late) <= (slack if market is UNITED_STATES else HOUR)


@pytest.mark.parametrize("text", TEXTS[:2])
def test_a_right_that_ends_in_mid_sweep(text: str) -> None:
    """The other market's releases are in time all the same, and nothing is told twice."""
    made_up = {"HK": 20, "US": 150}
    shown = season(made_up)
    index, began = next(
        (n, at) for n, at in enumerate(shown.releases[UNITED_STATES]) if at > 7 * DAY
    )
    since = began + 100.0
    run = play(made_up, without_us(text, since=since))
    alone = play({"HK": 20})
    swept = run.releases[UNITED_STATES, index]
    assert 0 < len(swept) < 150
    assert run.doubled == 0
    assert mean(first_rows(run)) <= 1.2 * mean(first_rows(alone))
    assert told(run) == [LEARNED]
    after = {code: n for code, n in run.polls.items() if code.startswith("US.")}
    assert max(after.values()) < 60


def test_a_second_of_trouble_is_no_missing_right() -> None:
    """A gateway that answers nobody for minutes, in a sweep and between, keeps all its markets."""
    began = season({"US": 100}).releases[UNITED_STATES]
    outages = [at + 60.0 for at in began if at > 0] + [3 * DAY, 9 * DAY + 1234.0]

    def says(account: str, code: Code, at: float) -> str | None:
        del account, code
        return "NN_ProtoRet_TimeOut" if any(o <= at < o + 90.0 for o in outages) else None

    run = play({"HK": 20, "US": 100}, says)
    assert not [fact for fact in run.facts if isinstance(fact, MarketRight)]
    assert run.missed == run.doubled == 0
