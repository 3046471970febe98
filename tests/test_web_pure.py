"""The page's pure parts: reports in Redis, rows, words, and pictures."""

import json
import math
import re
import string
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from html import unescape
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poller.codec import FIRST_YEAR, LAST_YEAR
from poller.markets import Market, all_markets
from poller.markets.hk import HONG_KONG, HkRecord
from poller.markets.us import UNITED_STATES, UsRecord
from poller.model import Code, Instrument, Vintage
from poller.schedule.facts import Facts, facts_of
from poller.schedule.report import coverage
from poller.store.store import Entry
from poller.telemetry.status import (
    GatewayState,
    Poll,
    Polls,
    ProcessReport,
    ReleaseState,
    living,
)
from poller.web.charts import FRAMES, Frame, chart, sparkline
from poller.web.formatting import (
    ago,
    cover,
    cover_note,
    days_old,
    decimal,
    direction,
    due,
    lines,
    number,
    percent,
    places_of,
    ratio,
    short,
    signed,
    trend,
)
from poller.web.market_view import markets, story_time
from poller.web.plots import Move, beside, moves, plot_text, plotted
from poller.web.rendering import unbroken
from poller.web.safe_json import entry_text, json_text
from poller.web.service_status import ServiceStatus, late, unready
from poller.web.watchlist_view import (
    PER_PAGE,
    SORTS,
    View,
    WatchlistRow,
    listed,
    row_of,
)

NOW = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
HK = Code("HK.00700")
texts = st.text(max_size=20)
moments = st.integers(1_500_000_000, 2_000_000_000).map(lambda s: datetime.fromtimestamp(s, UTC))
gateways = st.builds(GatewayState, texts, texts, st.booleans(), texts, moments)
states = st.builds(
    ReleaseState,
    st.sampled_from(["watching", "sweeping", "paused"]),
    st.none() | st.dates(date(FIRST_YEAR, 1, 1), date(LAST_YEAR, 12, 31)),
    st.integers(0, 9),
    st.integers(0, 9),
)
reports = st.builds(
    ProcessReport,
    moments,
    st.sampled_from(["run", "poll", "deliver", "web"]),
    texts,
    st.none() | st.integers(0, 9),
    st.lists(gateways, max_size=2).map(tuple),
    st.integers(0, 9),
    st.dictionaries(st.sampled_from(["HK", "US"]), states),
    st.dictionaries(texts, texts, max_size=2),
)
polls = st.builds(
    Polls,
    st.lists(st.builds(Poll, moments, texts), max_size=3).map(tuple),
    st.none() | moments,
    texts,
)
vintages = st.lists(
    st.tuples(
        st.none() | st.integers(0, 2**64 - 1),
        st.none() | st.floats(0, 100),
        st.none() | st.floats(0, 1e7),
        st.integers(0, 3),
    ),
    max_size=80,
).map(
    lambda rows: [
        Vintage(
            HkRecord(None, str(date(2025, 1, 3) + timedelta(weeks=n)), shares, ratio, price, None),
            revision,
            NOW,
        )
        for n, (shares, ratio, price, revision) in enumerate(rows)
    ]
)


@given(reports, polls)
def test_what_is_told_is_read_back(report: ProcessReport, told: Polls) -> None:
    """Reports and polls survive their JSON."""
    assert ProcessReport.from_json(report.to_json()) == report
    assert Polls.from_json(told.to_json()) == told


@given(st.text() | st.recursive(st.none() | st.integers(), st.lists).map(json.dumps), reports)
def test_rubbish_counts_as_absent(text: str, report: ProcessReport) -> None:
    """What somebody else wrote there, or half of ours, is None and raises nothing."""
    assert ProcessReport.from_json(text) is None
    assert Polls.from_json(text) is None
    raw = json.loads(report.to_json())
    for name in ("at", "role", "version"):
        less = {key: value for key, value in raw.items() if key != name}
        assert ProcessReport.from_json(json.dumps(less)) is None


def test_a_silent_process_is_dead() -> None:
    """After a minute without a report a process no longer counts."""
    fresh, stale = (ProcessReport(NOW - timedelta(seconds=s), "run", "0") for s in (59, 61))
    assert list(living({"a": fresh, "b": stale}, NOW)) == ["a"]


@given(vintages, texts, st.sampled_from(FRAMES))
def test_every_chart_is_well_formed(days: list[Vintage], title: str, frame: Frame) -> None:
    """Whatever is absent, a chart is XML whose every point lies inside it, described in words."""
    clean = "".join(c for c in title if c in string.printable and c.isprintable())
    drawn = chart(clean, days, frame)
    known = [day for day in days if day.record.shares]
    assert bool(drawn) == (len(known) > 1)
    if not drawn:
        return
    root = ET.fromstring(drawn)  # noqa: S314  our own
    assert root.attrib["aria-label"] == clean
    assert "reports from" in (root.findtext("desc") or "")
    for line in (*root.iter("polyline"), *root.iter("polygon")):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= frame.width
            assert 0 <= y <= frame.height
    rings = [c for c in root.iter("circle") if c.attrib["class"] == "revised"]
    assert len(rings) == sum(bool(day.revision) for day in known)
    for band in root.iter("rect"):
        assert frame.left <= float(band.attrib["x"])
        assert float(band.attrib["x"]) + float(band.attrib["width"]) <= frame.right + 3.1


extremes = st.floats() | st.integers(-(10**400), 10**400) | st.integers(-(2**64), 2**64)
hk_records = st.builds(
    HkRecord,
    st.none() | extremes,
    st.dates().map(str),
    *[st.none() | extremes] * 4,
)
us_records = st.builds(
    UsRecord,
    st.none() | extremes,
    st.dates().map(str),
    *[st.none() | extremes] * 6,
)
wild = st.one_of(
    *(
        st.lists(
            st.builds(Vintage, kind, st.integers(0, 3), st.datetimes(timezones=st.just(UTC))),
            max_size=12,
            unique_by=lambda vintage: vintage.day,
        )
        for kind in (hk_records, us_records)
    )
).map(lambda days: sorted(days, key=lambda vintage: vintage.day))


HUGE = [
    Vintage(HkRecord(None, day, 1, 1.7e308, 1.0, 1.0), 0, datetime(2026, 2, 1, tzinfo=UTC))
    for day in ("2026-01-02", "2026-01-09")
]
"""Two figures whose sum is infinite."""


@example(HUGE, FRAMES[0])
@given(wild, st.sampled_from(FRAMES))
def test_no_value_makes_a_chart_infinite(days: list[Vintage], frame: Frame) -> None:
    """Whatever numbers a record holds, a chart is short, and every coordinate lies inside it."""
    drawn = chart("x", days, frame)
    assert len(drawn) < 20_000
    if not drawn:
        return
    root = ET.fromstring(drawn)  # noqa: S314  our own
    for node in root.iter():
        for name in ("x", "x1", "x2", "cx", "y", "y1", "y2", "cy", "width", "height"):
            if node.tag != "pattern" and name in node.attrib:
                most = frame.width if name in {"x", "x1", "x2", "cx", "width"} else frame.height
                assert 0 <= float(node.attrib[name]) <= most
        for x, y in (point.split(",") for point in node.attrib.get("points", "").split()):
            assert 0 <= float(x) <= frame.width
            assert 0 <= float(y) <= frame.height


@given(wild)
def test_no_value_spoils_the_live_chart(days: list[Vintage]) -> None:
    """Whatever numbers a record holds, the script gets JSON with a figure for each day."""
    newest_first = list(reversed(days))
    moved = moves(newest_first)
    plot = plotted(HONG_KONG, newest_first, moved)
    if plot is None:
        return
    read = json.loads(plot_text(plot), parse_constant=pytest.fail)
    columns = [read["days"], read["change"], *(panel["values"] for panel in read["panels"])]
    assert {len(column) for column in columns} == {len(days)}
    assert read["panels"][0]["key"] == "shares"


def test_the_drawn_chart_stays_without_shares_to_draw() -> None:
    """Shares beyond what a picture can show leave no live chart, which would have no panel."""
    days = weeks((2 * 10**15, math.nan), (3 * 10**15, math.nan))
    assert plotted(HONG_KONG, days, {}) is None


def test_the_moves_of_a_history() -> None:
    """A split is taken out and told; next to a day below the threshold, nothing has moved."""
    first = weeks((1_000_000, 0.5), (1_100_000, 0.55), (0, 0.0), (1_000_000, 0.5))
    moved = moves(list(reversed(first)))
    days = [vintage.day for vintage in first]
    assert [(moved[day].shares, moved[day].percent) for day in days[1:]] == [
        (100_000, 10.0),
        (None, None),
        (None, None),
    ]
    split = [
        Vintage(HkRecord(None, str(day), shares, 0.5, price, price), 0, NOW)
        for day, shares, price in ((days[0], 1_000_000, 40.0), (days[1], 4_040_000, 10.0))
    ]
    move = moves(list(reversed(split)))[days[1]]
    assert move == Move(40_000, 1.0, Fraction(4))


@given(extremes)
def test_every_number_has_short_words(value: float) -> None:
    """A number that cannot be shown is a dash; none takes more than a cell has room for."""
    told = [decimal(value), decimal(value, 4), percent(value), ratio(value), short(value)]
    told += [number(value), signed(value)] if isinstance(value, int) else []
    assert direction(value) in {"", "up", "down"}
    assert places_of([value]) in {2, 3, 4}
    for text in told:
        assert len(text) <= 30
        assert not any(word in text.lower() for word in ("nan", "inf"))


def spelled(vintage: Vintage) -> str:
    """Return a vintage's JSON, also of numbers that are none."""
    extra = {"revision": vintage.revision, "observed_at": str(vintage.observed_at)}
    return json.dumps(vintage.record.columns() | extra)


@given(
    st.dictionaries(
        st.text() | st.dates().map(str),
        st.text()
        | st.builds(Vintage, hk_records | us_records, st.integers(), moments).map(spelled),
        max_size=4,
    )
)
def test_every_history_is_a_row(history: dict[str, str]) -> None:
    """Whatever a history contains, its row is shown, sorted, and valid as JSON."""
    for code in (HK, Code("US.AAPL")):
        row = row_of(code, history)
        json.dumps(row.columns(), allow_nan=False)
        sparkline(row.drawn)
        assert row.day is None or 1970 <= row.day.year < 2200
        markets([row], {}, NOW)
        for sort in SORTS:
            assert (
                listed([row, WatchlistRow(HK)], View(sort=sort, descending=True), (), NOW).found
                == 2
            )


json_values = st.recursive(
    st.none() | st.booleans() | extremes | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(json_values, st.text(), st.text())
def test_every_entry_is_json(value: object, code: str, day: str) -> None:
    """A foreign entry is JSON that UTF-8 can encode; on the page it is a line or none."""
    clean = [text.encode(errors="replace").decode() for text in (code, day)]
    for data in (json.dumps(value), json.dumps({"record": value, "change": value})):
        fields = {"code": clean[0], "type": "x", "trading_day": clean[1], "observed_at": "x"}
        entry = Entry("1-0", fields | {"data": data})
        text = entry_text(entry)
        text.encode()
        assert json.loads(text, parse_constant=pytest.fail)["stream_id"] == "1-0"
        for line in lines([entry]):
            assert len(line.code) <= 64
            assert len(percent(line.percent)) <= 30


@given(json_values)
def test_every_answer_is_json(value: object) -> None:
    """What is no JSON becomes null or a question mark; everything else stays."""
    text = json_text(value)
    text.encode()
    json.loads(text, parse_constant=pytest.fail)


def weeks(*rows: tuple[int, float]) -> list[Vintage]:
    """Return reports with these shares and ratios, a week apart."""
    first = date(2026, 1, 2)
    days = [str(first + timedelta(weeks=n)) for n in range(len(rows))]
    found = [HkRecord(None, d, *row, None, None) for d, row in zip(days, rows, strict=True)]
    return [Vintage(record, 0, NOW) for record in found]


def runs_of(drawn: str, name: str) -> list[str]:
    """Return the points of every line of this class."""
    lines = ET.fromstring(drawn).iter("polyline")  # noqa: S314  our own
    return [line.attrib["points"] for line in lines if line.attrib["class"] == name]


@pytest.mark.parametrize("frame", FRAMES)
def test_below_the_threshold_is_a_gap(frame: Frame) -> None:
    """A 0 of Hong Kong breaks the line and is hatched: it is never drawn as covered."""
    rows = [(73_000_000, 0.4), (70_000_000, 0.38), (0, 0.0), (0, 0.0), (60_000_000, 0.33)]
    drawn = chart("x", weeks(*rows), frame)
    assert [len(set(run.split())) for run in runs_of(drawn, "shares")] == [2, 1]
    assert not [run for run in runs_of(drawn, "shares") if f",{frame.split}.0" in run]
    (band,) = ET.fromstring(drawn).iter("rect")  # noqa: S314
    assert "2026-01-16 to 2026-01-23" in (band.findtext("title") or "")
    assert band.attrib["fill"] == f"url(#hatch-{frame.name})"


def test_the_ratio_has_a_line_only_where_it_says_more() -> None:
    """While shares and ratio move together there is one line; issued shares that change make two.

    Rounding to two decimals is no difference.
    """
    follows = weeks(*((n * 1_000_000, round(n * 0.0137, 2)) for n in range(1, 40)))
    issued = weeks(
        *((n * 1_000_000, round(n * (0.03 if n < 20 else 0.06), 2)) for n in range(1, 40))
    )
    assert runs_of(chart("x", follows, FRAMES[0]), "ratio") == []
    assert len(runs_of(chart("x", issued, FRAMES[0]), "ratio")) == 1
    assert "(dashed)" in chart("x", issued, FRAMES[0])


@given(st.lists(st.none() | st.integers(0, 2**64 - 1), max_size=40))
def test_every_sparkline_is_well_formed(values: list[int | None]) -> None:
    """A line breaks where a figure is absent, and stays inside its picture."""
    drawn = sparkline(values)
    if sum(value is not None for value in values) < 2:
        assert drawn == ""
        return
    points = [
        tuple(map(float, point.split(",")))
        for line in ET.fromstring(drawn).iter("polyline")  # noqa: S314
        for point in dict.fromkeys(line.attrib["points"].split())
    ]
    assert len(points) == sum(value is not None for value in values)
    assert all(0 <= x <= 104 and 0 <= y <= 24 for x, y in points)


rows = st.lists(
    st.builds(
        WatchlistRow,
        st.sampled_from([Code(f"{m}.{n:05}") for m in ("HK", "US") for n in range(150)]),
        st.none() | st.dates(date(FIRST_YEAR, 1, 1), date(LAST_YEAR, 12, 31)),
        st.none() | st.integers(0, 5),
        st.none() | st.floats(0, 5),
        st.none() | st.integers(-5, 5),
        st.none() | st.floats(-5, 5),
    ),
    max_size=250,
    unique_by=lambda row: row.code,
)


@given(rows, st.sampled_from(sorted(SORTS)), st.sampled_from([None, *all_markets()]), st.data())
def test_pages_hold_every_row_once(
    found: list[WatchlistRow], sort: str, market: Market | None, data: st.DataObject
) -> None:
    """The pages of a view hold what it asks for, sorted, what is not known last."""
    down = data.draw(st.booleans())
    view = View("0", market, sort, down)
    first = listed(found, view, (), NOW)
    pages = [
        listed(found, View("0", market, sort, down, n + 1), (), NOW) for n in range(first.pages)
    ]
    together = [row for page in pages for row in page.rows]
    wanted = [row for row in found if market in (None, row.market)]
    assert sorted(row.code for row in together) == sorted(row.code for row in wanted)
    assert all(len(page.rows) <= PER_PAGE for page in pages)
    keys = [SORTS[sort](row) for row in together]
    known = [key for key in keys if key is not None]
    assert keys == known + [None] * (len(keys) - len(known))
    assert known == sorted(known, reverse=down)


def test_a_view_survives_its_address() -> None:
    """Defaults are left out; a second click on a head turns the order around."""
    assert View().query() == {}
    view = View("7", HONG_KONG).with_sort("shares")
    assert view.query() == {"q": "7", "market": "HK", "sort": "-shares"}
    assert not view.with_sort("shares").descending
    assert view.query(3)["page"] == "3"


def test_an_edited_history_leaves_a_row() -> None:
    """Unreadable days are passed over; without any there is a row without figures."""
    day = Vintage(HkRecord(None, "2026-11-13", 90, 0.5, 1.0, 1.0), 0, NOW).to_json()
    row = row_of(HK, {"2026-11-13": day, "2026-11-20": "rubbish", "x": "{}"})
    assert (row.shares, row.change, str(row.day)) == (90, None, "2026-11-13")
    assert row_of(HK, {"2026-11-13": "rubbish"}) == WatchlistRow(HK)


def hong_kong(*days: tuple[date, ...]) -> list[WatchlistRow]:
    """Return rows of Hong Kong with these reports, newest first."""
    return [
        WatchlistRow(Code(f"HK.{n:05}"), each[0] if each else None, 1, before=each[1:])
        for n, each in enumerate(days)
    ]


NEW, LAST, EARLY = date(2026, 11, 20), date(2026, 11, 13), date(2026, 1, 2)


def test_who_is_wanted_is_as_in_a_report() -> None:
    """The page counts by `coverage`: none is wanted without one of the three reports before."""
    older = tuple(LAST - timedelta(weeks=week) for week in range(3))
    found = hong_kong((NEW, *older), (NEW,), older, (older[2],), (EARLY,), ())
    (view,) = markets(found, {}, NOW)
    assert (view.symbols, view.covered, view.wanted) == (6, 2, 4)
    assert [row.code for row in view.behind] == ["HK.00002", "HK.00003"]
    assert view.due_since is None
    told = {"HK": ReleaseState("paused", NEW, 40, 10)}
    assert markets(found, told, NOW)[0].wanted == 4
    covered = coverage(NEW, {row.code: row.days for row in found}, [row.code for row in found])
    assert dict(covered.others) == {"HK.00004": EARLY, "HK.00005": None}


def test_a_release_in_progress() -> None:
    """It is what the poller reports, or what it has not reported yet; nobody is late in it."""
    found = hong_kong((NEW,), (LAST,))
    for told in (ReleaseState("sweeping", NEW, 2, 1), ReleaseState("watching", LAST, 2, 2)):
        (view,) = markets(found, {"HK": told}, NOW)
        assert (view.in_progress, view.covered, view.wanted) == (True, 1, 2)
        assert not view.late
    (view,) = markets(found, {"HK": ReleaseState("watching", NEW, 2, 1)}, NOW)
    assert [row.code for row in view.late] == ["HK.00001"]


def test_a_row_ahead_of_its_market_is_not_late() -> None:
    """Late is an older day, never a newer one."""
    found = hong_kong((NEW,), (LAST,))
    service = ServiceStatus(NOW, markets=markets(found, {}, NOW))
    assert late(service, found) == {"HK.00001": NEW}
    assert late(service, hong_kong((NEW,), (date(2026, 11, 27), NEW))) == {}


def test_a_late_report_is_due_since_its_release() -> None:
    """HK figures of 13 November are expected on the 20th at nine in Hong Kong."""
    (view,) = markets([WatchlistRow(HK, date(2026, 11, 6), 1)], {}, NOW)
    assert str(view.next_day) == "2026-11-13"
    assert view.due_since == datetime(2026, 11, 20, 1, tzinfo=UTC)


def test_no_report_of_a_simulation_is_late() -> None:
    """Its calendar stands where its last release was expected, however long ago that is."""
    found = [
        WatchlistRow(HK, date(2021, 12, 24), 1),
        WatchlistRow(Code("US.MSFT"), date(2021, 12, 15), 1),
    ]
    views = markets(found, {}, story_time(found, NOW))
    assert [view.due_since for view in views] == [None, None]
    assert [str(view.expected) for view in views] == ["2021-12-24", "2021-12-15"]
    assert story_time([WatchlistRow(HK)], NOW) == NOW


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        (ServiceStatus(NOW, redis="refused"), "Redis does not answer: refused"),
        (ServiceStatus(NOW), "no poller reports"),
        (ServiceStatus(NOW, reports={"a": ProcessReport(NOW, "web", "0")}), "no poller reports"),
        (
            ServiceStatus(NOW, reports={"a": ProcessReport(NOW, "poll", "0")}),
            "no poller holds the lease",
        ),
    ],
)
def test_reasons(service: ServiceStatus, reason: str) -> None:
    """Each way not to be ready has its own words."""
    assert unready(service)[0].startswith(reason)


@given(st.text())
@example("the report of 2026-07-10 is expected from 2026-07-17 01:00 UTC on; <b>'2026-07-10'</b>")
def test_dates_in_words_are_kept_whole(text: str) -> None:
    """They are the only markup of a text, which is otherwise escaped and unchanged."""
    marked = str(unbroken(text))
    plain = marked.replace('<span class="value">', "").replace("</span>", "")
    assert "<" not in plain
    if text.isprintable():
        assert unescape(plain) == text
    for day in re.findall(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII):
        assert f'<span class="value">{day}</span>' in marked


def test_words() -> None:
    """Signs are typographic, absent is a dash, ages have one unit, days are the market's own."""
    assert [signed(n) for n in (1234, -1234, 0, None)] == ["+1,234", "−1,234", "±0", "–"]
    assert [percent(n) for n in (1.5, -1.5, None)] == ["+1.50 %", "−1.50 %", "–"]
    spans = [ago(NOW - timedelta(seconds=s), NOW) for s in (0, 5, 300, -7200, 259200)]
    assert spans == ["now", "5 s ago", "5 min ago", "in 2 h", "3 d ago"]
    assert percent(0.001) == percent(-0.001) == "±0.00 %"
    assert ago(NOW, NOW - timedelta(days=1, hours=22, minutes=59)) == "in 1 d 22 h"
    assert ago(NOW, NOW - timedelta(days=14, hours=18)) == "in 15 d"
    assert due(NOW - timedelta(seconds=2), NOW) == "now"
    late = datetime(2026, 11, 13, 16, 30, tzinfo=UTC)  # the 14th in Hong Kong
    assert days_old(date(2026, 11, 13), HONG_KONG, late) == "1 d"
    assert days_old(date(2026, 11, 13), UNITED_STATES, late) == "0 d"


@pytest.mark.parametrize(
    ("days", "shown"),
    [(999.99, "≥ 999.99"), (1.0, "≤ 1.00"), (14.9, "14.90"), (None, "–")],
)
def test_days_to_cover_at_a_bound(days: float | None, shown: str) -> None:
    """A sentinel is said to lie beyond, with its meaning; all others have two decimals."""
    record = UsRecord(None, "2026-11-13", 1, 0.5, 1, days, 1.0, 1.0)
    assert cover(record) == shown
    assert bool(cover_note(record)) == (days in (999.99, 1.0))


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        (Facts(zscore=-1.234, streak=-3), "z-score −1.23, 3 reports down in a row"),
        (Facts(zscore=0.5, streak=1), "z-score 0.50, 1 report up"),
        (Facts(streak=-1), "1 report down"),
        (Facts(streak=0), "unchanged"),
        (Facts(streak=1234), "1,234 reports up in a row"),
        (Facts(zscore=math.nan), ""),
        (Facts(), ""),
    ],
)
def test_the_trend_in_words(facts: Facts, shown: str) -> None:
    """What is not known is not said, nor that a move is the first of its kind."""
    assert trend(facts) == shown


def test_a_history_has_columns_of_what_it_says() -> None:
    """Of each day beside the earlier ones; a column of which nothing is known is left out."""
    covers = (2.5, 2.75, 2.25, 2.25)
    days = [NOW.date() - timedelta(weeks=n) for n in range(4)]
    vintages = [
        Vintage(UsRecord(None, str(day), shares, 0.5, 1000, cover, 9.0, 9.0), 0, NOW)
        for day, shares, cover in zip(days, (30, 20, 10, 10), covers, strict=True)
    ]
    facts = facts_of(vintage.record for vintage in vintages)
    bare = beside(vintages, facts, Instrument())
    assert bare.heads == ("Days to cover, change", "Streak")
    assert [bare.cells[day] for day in days] == [
        ("−0.25", "+2"),
        ("+0.50", "+1"),
        ("±0.00", "±0"),
        ("–", "–"),
    ]
    counted = beside(vintages, facts, Instrument(None, 400, 200, NOW, NOW))
    assert counted.heads[-1] == "Of outstanding"
    assert counted.cells[days[0]][-1] == "15.00 %"
    assert beside((), (), Instrument()).heads == ()


def test_prices_of_a_column_have_the_same_decimals() -> None:
    """Two, or as many as the finest price needs."""
    assert places_of([14.9, 14.89, None]) == 2
    assert places_of([0.055, 1.0]) == 3
    assert decimal(14.9, places_of([14.9, 14.89])) == "14.90"


def row(day: str) -> dict[str, object]:
    """Return the columns of a day that nobody may leave out."""
    return {"timestamp": None, "timestamp_str": day, "shares_short": 1}


def test_a_change_says_against_what() -> None:
    """A revision is compared with the figure it replaces, a new day with the report before."""
    data = json.dumps({"record": row("2026-01-01"), "change": {"percent": 4.0}})
    fields = {"code": "US.A", "observed_at": "2026-01-09T00:00:00Z", "data": data}
    kinds = ("reported", "revised")
    told = lines([Entry(kind, fields | {"type": f"short_interest.{kind}"}) for kind in kinds])
    assert [line.against for line in told] == ["the figure it replaces", "the report before"]


def test_a_first_sight_is_one_line() -> None:
    """Backfilled days of a symbol share a line; each reported day has its own."""

    def entry(n: int, kind: str, code: str) -> Entry:
        data = json.dumps({"record": row(f"2026-01-0{n}"), "change": None})
        fields = {"type": f"short_interest.{kind}", "code": code, "data": data}
        return Entry(f"{n}-0", fields | {"observed_at": "2026-01-09T00:00:00Z"})

    told = [entry(n, "backfilled", "US.A") for n in (1, 2, 3)]
    told += [entry(4, "reported", "US.A"), entry(5, "reported", "US.A"), Entry("6-0", {})]
    assert [(line.kind, line.count, line.day) for line in lines(told)] == [
        ("reported", 1, "2026-01-05"),
        ("reported", 1, "2026-01-04"),
        ("backfilled", 3, "2026-01-03"),
    ]
