"""Selection: who gets an event, and what is said of a filter that cannot be used."""

import json
import re
import time
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.delivery.selection import EVENTS, NAMES, Selection
from poller.detect.compare import Known, compare
from poller.events import StreamEvent, encode
from poller.markets import all_markets
from poller.markets.hk import HkRecord
from poller.markets.us import UsRecord
from poller.model import Cause, Change, Code, Event, EventType, Restatement, Vintage
from poller.schedule.notice import TYPES, Completed, Detected
from poller.simulator import World
from tests.feed import event_of, notice_of

HK, US = Code("HK.00700"), Code("US.AAPL")
SEEN = datetime(2026, 11, 20, tzinfo=UTC)
EVERYTHING = frozenset(EVENTS)


def entry(
    record: HkRecord | UsRecord, change: Change | None = None, code: Code = HK
) -> StreamEvent:
    """Return a reported row as a reader of the stream has it."""
    vintage = Vintage(record, 0, SEEN)
    return event_of(encode(Event(EventType.REPORTED, code, vintage, None, change)))


def moved(percent: float | None) -> Change:
    """Return a change of which only the percentage matters."""
    return Change(
        shares=5,
        percent=percent,
        ratio_points=None,
        days=7,
        price_percent=None,
        percentile=None,
        year_high=True,
        year_low=None,
        history_days=2,
        delay_hours=9.5,
    )


HK_ROW = HkRecord(None, "2026-11-13", 5_000_000, 0.56, 467.8, None)
US_ROW = UsRecord(None, "2026-10-30", 900, 1.25, 300, 6.5, 200.0, None)
HK_ENTRY = entry(HK_ROW, moved(-12.5))
US_ENTRY = entry(US_ROW, moved(10.0), US)
FIRST = entry(HK_ROW)


@pytest.mark.parametrize(
    ("text", "matching"),
    [
        ("abs(change.percent) >= 10 && record.days_to_cover > 5", [US_ENTRY]),
        ("abs(change.percent) >= 10", [HK_ENTRY, US_ENTRY]),
        ("change.percent < 0", [HK_ENTRY]),
        ("!(change.percent < 0)", [US_ENTRY]),
        ("change.percent < 0 || shares > 1000", [HK_ENTRY, FIRST]),
        ("change.year_high && change.delay_hours == 9.5", [HK_ENTRY, US_ENTRY]),
        ("change.year_low || !change.year_low", []),
        ("shares == 900 && ratio > 1.2 && revision == 0", [US_ENTRY]),
        ("shares / record.avg_daily_share_volume == 3.0", [US_ENTRY]),
        ('market == "HK" && event == "reported"', [HK_ENTRY, FIRST]),
        ("trading_day >= '2026-11-01'", [HK_ENTRY, FIRST]),
        ("code in ['US.AAPL', 'US.MSFT'] || code.endsWith('05')", [US_ENTRY]),
        ("record.aggregated_short * 2.0 > 9e6", [HK_ENTRY, FIRST]),
        ("previous.shares >= 0", []),
        ("true", [HK_ENTRY, US_ENTRY, FIRST]),
    ],
)
def test_what_a_filter_lets_pass(text: str, matching: list[StreamEvent]) -> None:
    """Figures of both markets compare; one that is missing decides nothing."""
    selection = Selection(filter=text)
    assert [one for one in (HK_ENTRY, US_ENTRY, FIRST) if selection.matches(one)] == matching


def restatement(cause: Cause, factor: float | None, change: Change | None) -> StreamEvent:
    """Return the event of a restatement of two months."""
    days = (date(2026, 9, 18), date(2026, 10, 30), date(2026, 11, 13))
    column = None if cause is Cause.REPLACED else "aggregated_short"
    fact = Restatement(factor, days, column, cause)
    vintage = Vintage(HK_ROW, 1, SEEN)
    event = Event(EventType.RESTATED, HK, vintage, HK_ROW, change, fact, name="TENCENT")
    return event_of(encode(event))


RESCALED = restatement(Cause.RESCALED, 4.0, moved(300.0))
RECOMPUTED = restatement(Cause.RECOMPUTED, 1.02, moved(0.0))
REPLACED = restatement(Cause.REPLACED, None, None)
SPLIT = entry(HK_ROW, replace(moved(0.0), split_factor=4.0))


@pytest.mark.parametrize(
    ("text", "matching"),
    [
        # as a filter about moves does, and the two ways of writing it that are documented
        ("abs(change.percent) >= 10", [HK_ENTRY, RESCALED]),
        (
            'event == "restated" || abs(change.percent) >= 10',
            [HK_ENTRY, RESCALED, RECOMPUTED, REPLACED],
        ),
        (
            'restated.cause == "replaced" || (event != "restated" && abs(change.percent) >= 10)',
            [HK_ENTRY, REPLACED],
        ),
        ("restated.cause in ['rescaled', 'recomputed']", [RESCALED, RECOMPUTED]),
        ("restated.factor > 2", [RESCALED]),
        ("restated.days == 3", [RESCALED, RECOMPUTED, REPLACED]),
        ("restated.column == 'aggregated_short'", [RESCALED, RECOMPUTED]),
        ("restated.from < '2026-10-01' && restated.to == trading_day",
         [RESCALED, RECOMPUTED, REPLACED]),
        ("'split' in flags", [SPLIT]),
        ("!('split' in flags)", [HK_ENTRY, RESCALED, RECOMPUTED, REPLACED]),
        ("name.startsWith('TEN')", [RESCALED, RECOMPUTED, REPLACED]),
    ],
)  # fmt: skip
def test_what_a_filter_says_of_restatements_flags_and_names(
    text: str, matching: list[StreamEvent]
) -> None:
    """Every member of an event can be asked for; one that it lacks decides nothing."""
    selection = Selection(EVERYTHING, filter=text)
    events = (HK_ENTRY, SPLIT, RESCALED, RECOMPUTED, REPLACED)
    assert [one for one in events if selection.matches(one)] == matching


def test_a_restatement_without_a_cause_is_a_rescaling() -> None:
    """The first version knew no other, and did not write it."""
    assert RESCALED.restated is not None
    old = replace(RESCALED, restated=replace(RESCALED.restated, cause=None))
    assert Selection(EVERYTHING, filter="restated.cause == 'rescaled'").matches(old)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flags == 'split'", "'==' does not go with list and text: write 'split' in flags"),
        ("cause == 'replaced'", "did you mean 'restated.cause'?"),
        ("shares > 1 && change.percnt > 3", "column 15, at 'change.percnt > 3': unknown name"),
        ("change.percnt > 3", "did you mean 'change.percent'?"),
        ("days_to_cover > 5", "did you mean 'record.days_to_cover'?"),
        ("type == 'reported'", "did you mean 'event'?"),
        ("abz(change.percent) > 1", "column 1, at 'abz(change.percent) > 1': unknown name 'abz'"),
        ("whatever > 1", "known are event, code"),
        ("shares > 1 &&\n  foo > 2", "line 2, column 3, at 'foo > 2'"),
        ("shares > 1 and ratio > 2", "column 12, at 'and ratio > 2': write &&"),
        ("not (shares > 1)", "write &&"),
        ("event = 'revised'", "column 7, at \"= 'revised'\": write &&"),
        ("code > 5", "column 6, at '> 5': '>' does not go with text and whole number"),
        ("shares * 2 > 5", "like 2.0"),
        ("shares", "neither true nor false"),
        ("shares > ", "at the end"),
        ("", "at the end"),
        ("(" * 200 + "true" + ")" * 200, "too deeply nested"),
        ("true || " * 20_000 + "true", "too long"),
        ("__import__('os').system('id')", "unknown name '__import__'"),
        ("code.__class__ == code", "column 5"),
        ("code.matches('(a+)+$')", "unknown name 'matches'"),
        ("[1.0].all(x, x > 0)", "unknown name 'x'"),
        ("9**9**9 > 1", "column 3"),
    ],
)
def test_a_filter_that_cannot_be_used(text: str, said: str) -> None:
    """It is refused when it is read, in one line that names the place and the cure."""
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        Selection(filter=text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"events": frozenset({"new"})}, "'new' is not an event; known are reported, revised"),
        ({"codes": ("hk.*",)}, "write 'HK.*'"),
        ({"codes": ("HK.700",)}, "write 'HK.00700'"),
        ({"codes": ("[XY]S.*",)}, "fits no code"),
    ],
)
def test_events_and_codes_nothing_can_fit(wrong: dict[str, Any], said: str) -> None:
    """A condition that no event could ever meet is a mistake."""
    with pytest.raises(ValueError, match=re.escape(said)):
        Selection(**wrong)


@pytest.mark.parametrize(
    ("codes", "matching"),
    [(("*",), [HK, US]), (("HK.*",), [HK]), (("HK.00005", "US.AAP?"), [US]), ((), [])],
)
def test_codes_are_shell_patterns(codes: tuple[str, ...], matching: list[Code]) -> None:
    """One fitting pattern is enough; without a pattern nothing fits."""
    selection = Selection(codes=codes)
    found = [one.code for one in (HK_ENTRY, US_ENTRY) if selection.matches(one)]
    assert found == matching


@pytest.mark.parametrize(
    ("codes", "markets"),
    [
        (("*",), "HK US"), (("HK.*",), "HK"), (("US.AAPL", "US.B*"), "US"), (("HK.00700",), "HK"),
        (("[HX]K.0*",), "HK"), (("?S.*",), "US"), (("H*",), "HK"), (("*.A*",), "HK US"),
        (("[!H]*",), "US"), ((), ""),
    ],
)  # fmt: skip
def test_of_notices_the_market_decides(codes: tuple[str, ...], markets: str) -> None:
    """A market no pattern can fit a code of is left out; a filter is not asked."""
    selection = Selection(frozenset(TYPES), codes, "shares > 1")
    day = date(2026, 11, 13)
    for market in all_markets():
        code = Code(f"{market}.{market.example}")
        for notice in (Detected(market, day, SEEN, code), Completed(market, day, SEEN, 1)):
            assert selection.matches(notice_of(notice)) == (market.name in markets.split())
            assert not Selection(codes=codes).matches(notice_of(notice))
    assert not selection.matches(HK_ENTRY)


@given(st.sets(st.sampled_from(EVENTS)), st.sampled_from(EventType))
def test_events(events: set[str], kind: EventType) -> None:
    """Exactly the chosen kinds pass."""
    event = replace(HK_ENTRY, type=str(kind))
    assert Selection(frozenset(events)).matches(event) == (kind.rpartition(".")[2] in events)


figures = st.none() | st.floats(-1e9, 1e9)
limits = st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9)


@given(figures, limits)
def test_a_comparison_is_that_of_numbers_and_false_without_one(
    value: float | None, limit: float
) -> None:
    """A figure compares as in Python; where it is missing, neither side of the coin matches."""
    event = replace(US_ENTRY, record=replace(US_ROW, short_percent=value))
    above = Selection(filter=f"ratio > {limit!r}").matches(event)
    assert above == (value is not None and float(value) > limit)
    other = Selection(filter=f"!(ratio > {limit!r})").matches(event)
    assert other == (value is not None and not above)


words = st.sampled_from([*NAMES, "&&", "||", "!", "==", ">", "(", ")", "abs(", "1", "2.5", "'a'"])


@given(st.text(max_size=40) | st.lists(words, max_size=12).map(" ".join))
def test_any_text_is_a_filter_or_a_line(text: str) -> None:
    """Whatever is written is used or refused in one line, and no event brings it down."""
    try:
        selection = Selection(filter=text)
    except ValueError as refused:
        assert len(str(refused).splitlines()) == 1  # noqa: PT017  most texts are refused
        return
    for one in (HK_ENTRY, US_ENTRY, FIRST):
        selection.matches(one)


@pytest.mark.parametrize(
    "text",
    [
        "code in [" + ",".join(["'HK.00001'"] * 8_000) + "]",
        " || ".join([f"'{'a' * 4_000}'.contains('{'a' * 2_000}b')"] * 15),
        "!" * 90_000 + "true",
    ],
    ids=["list", "search", "chain"],
)
def test_the_longest_filters_are_quick(text: str) -> None:
    """The costliest filters the limits allow take milliseconds an event, not seconds."""
    selection = Selection(filter=text)
    began = time.process_time()
    for _ in range(10):
        selection.matches(HK_ENTRY)
    assert time.process_time() - began < 2


def test_a_filter_agrees_with_the_events_of_a_world() -> None:
    """Over a year of rows as the service publishes them, a filter finds what Python finds."""
    world = World(made_up={"HK": 6, "US": 6}, history=30)
    selection = Selection(EVERYTHING, filter="change.percent >= 5 && record.days_to_cover > 2")
    checked = []
    for code in world.codes():
        rows = world.records(code, SEEN)
        for event in compare(code, rows, Known(), observed_at=SEEN, history=50).events:
            change, cover = event.change, asdict(event.vintage.record).get("days_to_cover")
            expected = change is not None and (change.percent or 0) >= 5 and (cover or 0) > 2
            assert selection.matches(event_of(encode(event))) == expected
            checked.append(expected)
    assert {True, False} == set(checked)


def test_every_name_of_the_language_is_one_an_event_has() -> None:
    """No name is promised that a stream entry could not bring."""
    hk = encode(Event(EventType.REPORTED, HK, Vintage(HK_ROW, 0, SEEN), HK_ROW, moved(1.0)))
    us = encode(Event(EventType.REPORTED, US, Vintage(US_ROW, 0, SEEN), US_ROW, moved(1.0)))
    given = set(hk) | {"event", "shares", "ratio"}
    for one in (hk, us):
        told = json.loads(one["data"])
        for part in ("record", "previous", "change"):
            given |= {f"{part}.{name}" for name in (*told[part], "shares", "ratio")}
    given |= {"flags", *(f"restated.{name}" for name in RESCALED.data["restated"])}
    given |= {"name", "outstanding_percent"}  # where they are known
    assert set(NAMES) <= given
