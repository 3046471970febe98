"""The one codec: what is written is read again, by every version, and nothing else gets through."""

import contextlib
import json
import re
from dataclasses import fields, replace
from datetime import UTC, date, datetime
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from poller.codec import FIRST_YEAR, LAST_YEAR, MOST, from_millis, read_day, read_json, read_moment
from poller.detect.held import QuarantinedFigure
from poller.errors import Unreadable
from poller.events import Foreign, Restated, StreamEvent, StreamNotice, data_schemas, decode, encode
from poller.markets import all_markets
from poller.markets.hk import HONG_KONG, HkRecord
from poller.markets.us import UNITED_STATES, UsRecord
from poller.model import Cause, Change, Code, Event, EventType, Restatement, Vintage, market_of
from poller.schedule.notice import Completed, Detected, Mover
from poller.schedule.release import MarketState
from poller.telemetry.status import Polls, ProcessReport
from tests.golden import VERSIONS, written

SEEN = datetime(2026, 5, 8, 9, 15, 2, 123000, tzinfo=UTC)
HK_ROW = HkRecord(1777478400, "2026-04-30", 51480638, 0.56, 467.8, 479.2)
EARLIER = HkRecord(1776960000, "2026-04-24", 51888755, 0.56, 493.4, 495.2)
US_ROW = UsRecord(1777435200, "2026-04-29", 44_000, 4.16, 855_353, 1.0, 23.75, None)
CHANGE = Change(-408117, -0.7865, 0.0, 6, -5.1885, 83.33, year_high=False, year_low=False)
HK_EVENT = Event(EventType.REPORTED, Code("HK.00700"), Vintage(HK_ROW, 0, SEEN), EARLIER, CHANGE)
US_EVENT = Event(
    EventType.RESTATED,
    Code("US.AAPL"),
    Vintage(US_ROW, 3, SEEN),
    None,
    None,
    Restatement(2.0, (date(2026, 4, 15), date(2026, 4, 29)), "shares_short", Cause.RESCALED),
)
NOTICES = (
    Detected(HONG_KONG, date(2026, 4, 30), SEEN, Code("HK.00700")),
    Completed(UNITED_STATES, date(2026, 4, 29), SEEN, 3, (Code("US.AAPL"),)),
    Completed(
        HONG_KONG,
        date(2026, 4, 30),
        SEEN,
        3,
        (),
        (
            Mover(Code("HK.00700"), "TENCENT", 51_480_638, -408_117, -0.7865, 1, 100.0),
            Mover(Code("HK.00005"), None, 5, 5, None, 2, 50.0),
        ),
    ),
)


def entries() -> list[tuple[str, dict[str, str]]]:
    """Return every entry of both streams as the released versions wrote it."""
    found = []
    for version in VERSIONS:
        for key in ("short-interest", "{short-interest}:releases"):
            found += [(position, flat) for position, flat in written(version)[key]["value"]]
    return found


def read(flat: dict[str, str]) -> StreamEvent:
    """Decode an entry that must be an event."""
    event = decode("1-0", flat)
    assert isinstance(event, StreamEvent), event
    return event


@pytest.mark.parametrize("event", [HK_EVENT, US_EVENT])
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    """Nothing is lost on the way through an entry."""
    found = read(encode(event))
    assert (found.id, found.type, found.code) == (event.id, event.type, event.code)
    assert (found.market, found.revision) == (market_of(event.code), event.vintage.revision)
    assert found.observed_at == event.vintage.observed_at
    assert (found.record, found.previous) == (event.vintage.record, event.previous)
    assert (found.change, found.flags) == (event.change, event.vintage.record.flags)


def test_data_is_complete_in_itself() -> None:
    """Whoever is handed `data` alone knows what the fields beside it say."""
    flat = encode(US_EVENT)
    data = json.loads(flat["data"])
    beside = {name: text for name, text in flat.items() if name not in {"data", "revision"}}
    assert data | beside == data
    assert data["revision"] == int(flat["revision"])
    assert read({"data": flat["data"]}) == read(flat)
    assert read(flat).restated == Restated(
        2, "2026-04-15", "2026-04-29", 2.0, "shares_short", "rescaled"
    )


@pytest.mark.parametrize("notice", NOTICES)
def test_a_notice_is_read_as_it_was_written(notice: Detected | Completed) -> None:
    """The streams of events and of releases have one reader."""
    found = decode("1-0", encode(notice))
    assert isinstance(found, StreamNotice)
    assert (found.market, found.trading_day, found.type) == (
        notice.market, notice.day, notice.type,
    )  # fmt: skip
    if isinstance(notice, Completed):
        assert (found.found, found.missing_codes) == (notice.found, notice.missing)
    else:
        assert found.code == notice.code


@pytest.mark.parametrize(("position", "flat"), entries())
def test_what_released_versions_wrote_is_read(position: str, flat: dict[str, str]) -> None:
    """Every entry of every version, whole."""
    message = decode(position, flat)
    assert not isinstance(message, Foreign), message
    data = json.loads(flat["data"])
    assert message.data_json == json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    if isinstance(message, StreamEvent):
        assert message.record.columns() == data["record"]
        assert (message.change is None) == (data["change"] is None)
        assert list(message.flags) == data.get("flags", [])


def test_what_released_versions_kept_is_read() -> None:
    """Vintages, history, held figures, plans, reports and polls of every version."""
    for version in VERSIONS:
        for key, stored in written(version).items():
            kind, _, code = key.removeprefix("{short-interest}:").partition(":")
            for text in stored["value"].values() if stored["type"] == "hash" else ():
                match kind:
                    case "history" | "vintages":
                        vintage = Vintage.from_json(market_of(Code(code)), text)
                        assert json.loads(vintage.to_json()) == json.loads(text)
                    case "held":
                        held = QuarantinedFigure.from_json(market_of(Code(code)), text)
                        assert json.loads(held.to_json()) == json.loads(text)
                    case "schedule":
                        state = MarketState.from_json(text)
                        assert json.loads(state.to_json()) == json.loads(text)
                    case "status":
                        report = ProcessReport.from_json(text)
                        assert report is not None
                        old = json.loads(text)
                        for market in old["markets"].values():
                            market.setdefault("next_at", None)
                        assert json.loads(report.to_json()) == old | {"defects": {}, "resting": []}
                    case "polls":
                        polls = Polls.from_json(text)
                        assert polls is not None
                        assert json.loads(polls.to_json()) == json.loads(text)
                    case _:
                        pass


def test_every_later_field_has_a_default() -> None:
    """A field added to `change` or to `data` must not make an older entry foreign."""
    flat = encode(HK_EVENT)
    data = json.loads(flat["data"])
    for name in [each.name for each in fields(Change)]:
        change = {key: value for key, value in data["change"].items() if key != name}
        assert read(flat | {"data": json.dumps(data | {"change": change})}).change is not None
    for name in data.keys() - {"record"}:
        less = {key: value for key, value in data.items() if key != name}
        assert read(flat | {"data": json.dumps(less)}).code == "HK.00700"
    told = {"data", "code", "type", "observed_at"}  # the day is in the record
    bare = json.dumps({key: value for key, value in data.items() if key not in flat.keys() - told})
    assert read({key: flat[key] for key in told} | {"data": bare}).id == "HK.00700:2026-04-30:0"
    needed = {"timestamp", "timestamp_str", "aggregated_short"}
    for name in data["record"].keys() - needed:
        record = {key: value for key, value in data["record"].items() if key != name}
        assert read(flat | {"data": json.dumps(data | {"record": record})}).record.shares


def test_an_instant_is_read_as_utc() -> None:
    """Whatever its offset: what is derived from it, as its day, is the same for all readers."""
    flat = encode(HK_EVENT)
    there = "2026-05-09T01:15:02.123+16:00"
    data = json.loads(flat["data"]) | {"observed_at": there}
    event = read(flat | {"observed_at": there, "data": json.dumps(data)})
    assert (event.observed_at, event.observed_at.tzinfo) == (SEEN, UTC)


def test_what_a_later_version_adds_is_kept() -> None:
    """Unknown members travel on; an unknown type is an event; spacing and order do not matter."""
    flat = encode(HK_EVENT)
    data = json.loads(flat["data"])
    data["record"]["lending_fee"] = 0.3
    later = {"zscore": 1.5} | data | {"type": "short_interest.squeezed"}
    event = read(flat | {"type": "short_interest.squeezed", "data": json.dumps(later, indent=3)})
    assert event.kind == "squeezed"
    assert event.data == later
    assert event.extra == {"zscore": 1.5}


_KILLERS: list[dict[str, str]] = [
    {"data": "[" * 50_000},
    {"data": '{"record":' * 3_000},
    {"data": '{"a":NaN}'},
    {"data": '{"a":1e400}'},
    {"data": '{"a":"\\ud800"}'},
    {"data": "9" * 5_000},
    {"data": "null"},
    {"data": "{}"},
    {"data": '"' + "x" * MOST + '"'},
    {"observed_at": "0001-01-01T00:00:00+14:00"},
    {"observed_at": "9999-12-31T23:59:59-14:00"},
    {"observed_at": "2026-05-08T09:15:02"},
    {"observed_at": ""},
    {"trading_day": "0001-01-01"},
    {"trading_day": "20260430"},
    {"trading_day": "2026-W18-4"},
    {"revision": "-1"},
    {"revision": "9" * 400},
    {"revision": "²"},
    {"code": "HK.00700|x"},
    {"code": "SH.600519"},
    {"code": "US.AAPL"},
    {"market": "US"},
    {"market": "HK\n"},
    {"type": ""},
    {"type": "short_interest.reported\x1b[31m"},
    {"type": "release.completed"},
    {"id": ""},
    {"id": "HK 00700"},
    {"id": "x" * 129},
]


@pytest.mark.parametrize("spoiled", _KILLERS)
def test_an_entry_that_cannot_be_used_is_foreign(spoiled: dict[str, str]) -> None:
    """With a reason that holds none of its text."""
    found = decode("1-0", encode(HK_EVENT) | spoiled)
    assert isinstance(found, Foreign)
    assert 0 < len(found.reason) <= 200
    assert "\x1b" not in found.reason


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"market": "XX"}, "market is not one this version knows"),
        ({"data": "{}"}, "data lacks a field of such a notice"),
        ({"data": '{"found": 3}'}, "data lacks a field of such a notice"),
        ({"data": '{"found": -1, "expected": 3}'}, "found"),
        ({"data": '{"found": 1, "expected": 1000000001}'}, "expected"),
        ({"data": '{"found": 0, "expected": 1000000000, "missing": 1000000000}'}, None),
    ],
)
def test_a_notice_that_cannot_be_used_is_foreign(told: dict[str, str], reason: str | None) -> None:
    """Another market, a figure that is missing, a count beyond 0 to 10⁹; the bounds are read."""
    found = decode("1-0", encode(NOTICES[1]) | told)
    if reason is None:
        assert isinstance(found, StreamNotice)
    else:
        assert isinstance(found, Foreign)
        assert reason in found.reason


def test_a_notice_that_names_nobody_lacks_nobody() -> None:
    """Nor does one of another program that says nothing of it."""
    found = decode("1-0", encode(NOTICES[1]) | {"data": '{"found": 1, "expected": 1}'})
    assert isinstance(found, StreamNotice)
    assert (found.missing, found.missing_codes) == (0, ())


def test_the_schemas_are_complete() -> None:
    """Whatever part they refer to is among them."""
    schemas = data_schemas("#/{model}")
    named = set(re.findall(r'"\$ref": "#/(\w+)"', json.dumps(schemas)))
    assert {f"{market}Data" for market in all_markets()} | named == schemas.keys()
    assert named


@pytest.mark.parametrize("name", ["record", "previous", "change"])
@pytest.mark.parametrize("value", [1e308, -1e300, "1", True, [], {}, 2**64, 10**400])
def test_figures_have_bounds(name: str, value: Any) -> None:  # noqa: ANN401
    """A figure of another type, or so large that sums overflow, makes an entry foreign."""
    flat = encode(HK_EVENT)
    data = json.loads(flat["data"])
    column = "shares" if name == "change" else "aggregated_short"
    data[name][column] = value
    assert isinstance(decode("1-0", flat | {"data": json.dumps(data)}), Foreign)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
calmly = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
_NAMES = st.sampled_from(
    ["id", "type", "code", "market", "trading_day", "revision", "observed_at", "data", "x"]
)
_TEXTS = st.text(max_size=60) | _JSON.map(json.dumps)


@calmly
@given(st.dictionaries(_NAMES, _TEXTS))
def test_no_entry_raises(spoiled: dict[str, str]) -> None:
    """Whatever stands in an entry, reading it gives a message or a reason."""
    decode("1-0", spoiled)
    for whole in (HK_EVENT, US_EVENT, *NOTICES):
        decode("1-0", encode(whole) | spoiled)


@calmly
@given(_JSON, st.sampled_from(["record", "previous", "change", "flags", "restated", "name"]))
def test_no_data_raises(value: Any, name: str) -> None:  # noqa: ANN401
    """The same for each member of `data`; what is accepted can be written again."""
    flat = encode(HK_EVENT)
    data = json.loads(flat["data"]) | {name: value}
    found = decode("1-0", flat | {"data": json.dumps(data)})
    if isinstance(found, StreamEvent):
        assert json.loads(found.data_json) == data
        json.dumps(found.record.columns(), allow_nan=False)


@calmly
@given(_TEXTS)
@example("[" * 50_000)
@example('{"revision":1,"observed_at":"0001-01-01T00:00:00+14:00"}')
@example('{"newest":"0001-01-01","sightings":[[]]}')
def test_no_record_raises_anything_else(text: str) -> None:
    """Every record kept in Redis is read, or refused by the one error its docstring names."""
    for market in all_markets():
        for reader in (Vintage.from_json, QuarantinedFigure.from_json):
            with contextlib.suppress(Unreadable):
                reader(market, text)
    with contextlib.suppress(Unreadable):
        MarketState.from_json(text)
    ProcessReport.from_json(text)
    Polls.from_json(text)


@pytest.mark.parametrize("day", ["0001-01-01", "1899-12-31", "2200-01-01", "9999-12-31"])
def test_a_day_of_history_is_of_the_years_that_count(day: str) -> None:
    """Reckoning with another one may overflow; only what is held may be of any year."""
    text = Vintage(replace(HK_ROW, timestamp_str=day), 0, SEEN).to_json()
    with pytest.raises(Unreadable, match="is not between"):
        Vintage.from_json(HONG_KONG, text)


@calmly
@given(st.text())
def test_days_and_moments_are_read_or_refused(text: str) -> None:
    """Nothing but Unreadable comes out."""
    for reader in (read_day, read_moment, read_json):
        with contextlib.suppress(Unreadable):
            reader(text)


@calmly
@given(st.floats(allow_nan=False) | st.integers().map(float))
def test_a_redis_clock_is_bounded(millis: float) -> None:
    """An id of the year 33658 is an instant all the same."""
    assert FIRST_YEAR <= from_millis(millis).year <= LAST_YEAR


def test_a_float_column_keeps_its_type() -> None:
    """A whole ratio is a float again; a count is an int."""
    flat = encode(HK_EVENT)
    data = json.loads(flat["data"])
    data["record"]["aggregated_short_ratio"] = 1
    record = cast("HkRecord", read(flat | {"data": json.dumps(data)}).record)
    assert isinstance(record.aggregated_short_ratio, float)
    assert isinstance(record.aggregated_short, int)


def test_codes_of_others_are_not_remembered_without_end() -> None:
    """Anybody may name any code in an entry; the market of so many is kept, and no more."""
    assert market_of.cache_info().maxsize == 2**17
