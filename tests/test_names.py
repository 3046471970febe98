"""What is published and kept of names and numbers of shares, whatever OpenD or others write."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.detect.compare import Known, compare
from poller.errors import Malformed, Unreadable
from poller.events import StreamEvent, decode, encode
from poller.gateway.securities import ShareCounts, names_in, share_counts_in
from poller.markets import Record
from poller.markets.hk import HkRecord
from poller.markets.us import UsRecord
from poller.model import MOST_NAME, Code, Event, Instrument, plain_name, titled
from poller.printable import printable
from tests.feed import row

TENCENT, HSBC = Code("HK.00700"), Code("HK.00005")
SEEN = datetime(2026, 5, 8, 9, tzinfo=UTC)

NAMES = st.text(max_size=40) | st.text(
    alphabet='\u202e\u200b\n\t\x00\x1b AB&<"腾̈\ud800', max_size=300
)
COUNTS = st.none() | st.integers(min_value=0, max_value=2**64 - 1)
MOMENTS = st.none() | st.datetimes(
    datetime(1901, 1, 1),  # noqa: DTZ001  as hypothesis wants it
    datetime(2198, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
).map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000))


@given(NAMES)
def test_a_name_is_safe_to_show(text: str) -> None:
    """One line of bounded length, nothing in it that `printable` would escape, and stable."""
    name = plain_name(text)
    if name is not None:
        assert 0 < len(name) <= MOST_NAME
        assert name == name.strip() == printable(name)
        assert plain_name(name) == name
        name.encode()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("TENCENT", "TENCENT"),
        ("  腾讯控股 \n", "腾讯控股"),
        ("A\tB\r\nC", "A B C"),
        ("Evil\u202egnp.exe", "Evilgnp.exe"),
        ("\x1b[31mRed\x1b[0m", "[31mRed[0m"),
        ("N/A", None),
        ("", None),
        ("\u200b\u202e", None),
        ("x" * 5_000, "x" * MOST_NAME),
    ],
)
def test_what_is_left_of_a_name(text: str, name: str | None) -> None:
    """Spaces are folded, what cannot be seen is left out, and N/A stands for no name."""
    assert plain_name(text) == name


@given(NAMES, COUNTS, COUNTS, MOMENTS, MOMENTS)
def test_what_is_cached_is_read_back(
    text: str,
    issued: int | None,
    outstanding: int | None,
    named_at: datetime | None,
    counted_at: datetime | None,
) -> None:
    """The codec reads what it wrote; what is not known is null, never N/A and never 0."""
    known = Instrument(plain_name(text), issued, outstanding, named_at, counted_at)
    assert Instrument.from_json(known.to_json()) == known
    assert json.loads(Instrument().to_json()) == dict.fromkeys(Instrument.__slots__)


@given(
    st.text()
    | st.recursive(
        st.none() | st.integers() | st.floats() | st.text(),
        lambda some: st.dictionaries(st.sampled_from(Instrument.__slots__) | st.text(), some),
    ).map(json.dumps)
)
def test_any_text_in_the_cache(text: str) -> None:
    """It is read within the bounds, or it is Unreadable, and nothing else."""
    try:
        known = Instrument.from_json(text)
    except Unreadable:
        return
    assert known.name is None or known.name == plain_name(known.name)
    for count in (known.issued_shares, known.outstanding_shares):
        assert count is None or 0 <= count < 2**64
    Instrument.from_json(known.to_json())


@pytest.mark.parametrize(
    "text",
    [
        '{"issued_shares":-1}',
        '{"issued_shares":"1"}',
        '{"issued_shares":1.5}',
        '{"outstanding_shares":1e30}',
        '{"named_at":"2026-05-08T09:00:00"}',
        '{"counted_at":"9999-12-31T00:00:00Z"}',
        '{"name":5}',
        '{"name":"' + "x" * 401 + '"}',
        '{"name":"' + "x" * 5_000 + '"}',
        "[]",
        "",
    ],
)
def test_what_is_out_of_bounds_is_unreadable(text: str) -> None:
    """Negative, broken or huge numbers, times without a zone, and texts that are too long."""
    with pytest.raises(Unreadable):
        Instrument.from_json(text)


def test_a_later_version_may_add_fields() -> None:
    """Unknown members are passed over, absent ones are not known."""
    assert Instrument.from_json('{"name":"A","sector":"B"}') == Instrument("A")


def table(**columns: list[Any]) -> pd.DataFrame:
    """Return a frame as the SDK does, whatever is in it."""
    return pd.DataFrame(columns)


def test_names_are_read_cell_by_cell() -> None:
    """What is no name is absent; rows that were not asked for, or come twice, do not count."""
    codes = [TENCENT, HSBC, Code("HK.00941"), Code("HK.00388")]
    frame = table(
        code=[TENCENT, TENCENT, HSBC, "HK.00941", "HK.00388", "HK.09999", None],
        name=["TENCENT", "OTHER", "N/A", 5, math.nan, "NOBODY ASKED", "X"],
    )
    assert names_in(frame, codes) == {TENCENT: "TENCENT"}


def test_shares_are_whole_numbers_or_absent() -> None:
    """One absent cell makes a column of floats; a 0 stands for what is not known."""
    codes = [TENCENT, HSBC, Code("HK.00941"), Code("HK.00388"), Code("HK.01810")]
    frame = table(
        code=codes,
        issued_shares=[9_192_971_000.0, math.nan, 0, -5, 1.5],
        outstanding_shares=[9_192_971_000, None, "N/A", "many", math.inf],
    )
    nothing = ShareCounts(None, None)
    assert share_counts_in(frame, codes) == {
        TENCENT: ShareCounts(9_192_971_000, 9_192_971_000),
        **dict.fromkeys(codes[1:], nothing),
    }


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "a text",
        5,
        table(),
        table(code=[TENCENT]),
        pd.DataFrame([["a", "b", "c"]], columns=["code", "name", "name"]),
    ],
)
def test_no_table_is_malformed(answer: object) -> None:
    """Whatever the SDK returns instead is one error of the gateway, and no other."""
    with pytest.raises(Malformed):
        names_in(answer, [TENCENT])
    with pytest.raises(Malformed):
        share_counts_in(answer, [TENCENT])


def events(name: str | None) -> tuple[Event, ...]:
    """Return the events of two days of Tencent, with its name."""
    found = compare(TENCENT, [row(2), row(1)], Known(), observed_at=SEEN, history=50)
    return found.described(Instrument(name)).events


@given(NAMES.map(plain_name))
def test_a_name_decides_nothing(name: str | None) -> None:
    """With or without it the events are the same, but for one member of `data`."""
    for named, plain in zip(events(name), events(None), strict=True):
        with_name, without = encode(named), encode(plain)
        assert {**with_name, "data": ""} == {**without, "data": ""}
        data = json.loads(with_name["data"])
        assert data.pop("name", None) == name
        assert data == json.loads(without["data"])


def test_an_event_without_a_name_is_written_as_before() -> None:
    """An older reader meets no new member, and `name` is absent, not null."""
    (event, _) = events(None)
    assert "name" not in json.loads(encode(event)["data"])


@pytest.mark.parametrize(
    ("written", "read"), [("TENCENT", "TENCENT"), ("T\u202eX", "TX"), ("N/A", None), (None, None)]
)
def test_a_foreign_name_is_made_plain(written: str | None, read: str | None) -> None:
    """Anybody may append to the stream: the name is safe to show, and `data` is passed on."""
    fields = encode(events("name")[0])
    fields["data"] = json.dumps(json.loads(fields["data"]) | {"name": written})
    event = decode("1-0", fields)
    assert isinstance(event, StreamEvent)
    assert event.name == read
    assert event.data["name"] == written


def test_one_form_for_people() -> None:
    """The name, then the code; the code alone where there is no name."""
    assert titled(TENCENT, "TENCENT") == "TENCENT (HK.00700)"
    assert titled(TENCENT, None) == TENCENT


def test_a_day_is_not_a_second() -> None:
    """Instants keep their milliseconds in the cache."""
    at = SEEN + timedelta(milliseconds=123)
    assert Instrument.from_json(Instrument(named_at=at).to_json()).named_at == at


COUNTED = Instrument("TENCENT", 10**10, 8 * 10**9, counted_at=SEEN)


@pytest.mark.parametrize(
    ("record", "known", "percent"),
    [
        (HkRecord(None, "2026-05-08", 20_000_000), COUNTED, 0.25),
        (HkRecord(None, "2026-03-24", 20_000_000), COUNTED, 0.25),
        (HkRecord(None, "2026-03-23", 20_000_000), COUNTED, None),
        (HkRecord(None, "2026-06-23", 20_000_000), COUNTED, None),
        (HkRecord(None, "2026-05-08", 0), COUNTED, None),  # below the threshold is no figure
        (UsRecord(None, "2026-05-08", 0), COUNTED, 0.0),
        (UsRecord(None, "2026-05-08", None), COUNTED, None),
        (UsRecord(None, "2026-05-08", 10**10), COUNTED, 125.0),
        (UsRecord(None, "2026-05-08", 5), replace(COUNTED, outstanding_shares=None), None),
        (UsRecord(None, "2026-05-08", 5), replace(COUNTED, outstanding_shares=0), None),
        (UsRecord(None, "2026-05-08", 5), Instrument("TENCENT", 10, 10), None),
    ],
)
def test_percent_of_the_outstanding_shares(
    record: Record, known: Instrument, percent: float | None
) -> None:
    """100 × shares ÷ outstanding; not for days so far from the count that it may not hold."""
    assert known.outstanding_percent(record) == percent


@given(st.none() | st.integers(min_value=0, max_value=2**64 - 1), st.integers(-400, 400))
def test_what_is_outstanding_decides_nothing(outstanding: int | None, days: int) -> None:
    """The events are the same but for one member of `data`, which a reader gets as it was told."""
    known = Instrument(outstanding_shares=outstanding, counted_at=SEEN + timedelta(days=days))
    found = compare(TENCENT, [row(2), row(1)], Known(), observed_at=SEEN, history=50)
    for told, plain in zip(found.described(known).events, found.events, strict=True):
        fields = encode(told)
        data = json.loads(fields["data"])
        percent = known.outstanding_percent(told.vintage.record)
        event = decode("1-0", fields)
        assert isinstance(event, StreamEvent)
        assert data.pop("outstanding_percent", None) == event.outstanding_percent == percent
        assert {**fields, "data": data} == {
            **encode(plain),
            "data": json.loads(encode(plain)["data"]),
        }
