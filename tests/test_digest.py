"""The digest: what a person reads in a chat, to the letter, and what holds for any events."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.delivery.chat_message import ChatMessage, body_of, text_of
from poller.delivery.digest import MOST_ROWS, announcement, digest, in_characters, missing
from poller.delivery.selection import Selection
from poller.detect.compare import Known, compare
from poller.events import StreamEvent, encode
from poller.markets import Market, all_markets
from poller.markets.hk import HONG_KONG, HkRecord
from poller.markets.us import UNITED_STATES, UsRecord
from poller.model import Cause, Change, Code, Event, EventType, Restatement, Vintage
from poller.schedule.notice import Completed, Detected, Mover, Notice
from poller.simulator import World
from tests.feed import event_of, notice_of

SEEN = datetime(2026, 11, 20, 12, tzinfo=UTC)


def aligned_size(message: ChatMessage) -> int:
    """Return the characters of a message whose tables line up."""
    return len(text_of(message, monospaced=True))


def told(
    code: str,
    now: int | None,
    before: int | None,
    *,
    cover: float | None = None,
    kind: EventType = EventType.REPORTED,
    restated: Restatement | None = None,
) -> StreamEvent:
    """Return an event: `now` and `before` are shares, 100,000 of them are one percent."""
    day, earlier = "2026-11-13", "2026-11-06" if kind is EventType.REPORTED else "2026-11-13"

    def row(text: str, shares: int | None) -> HkRecord | UsRecord:
        ratio = None if shares is None else shares / 100_000
        if code.startswith("HK"):
            return HkRecord(None, text, shares, ratio, None, None)
        return UsRecord(None, text, shares, ratio, None, cover, None, None)

    moved = None if now is None or before is None else now - before
    change = Change(
        shares=moved,
        percent=100 * moved / before if moved is not None and before else None,
        ratio_points=None,
        days=7,
        price_percent=None,
        percentile=None,
        year_high=None,
        year_low=None,
        history_days=2,
        delay_hours=9.5,
    )
    vintage = Vintage(row(day, now), int(kind is EventType.REVISED), SEEN)
    return event_of(
        encode(Event(kind, Code(code), vintage, row(earlier, before), change, restated))
    )


ONE_DAY = [
    told("HK.00005", 1_000_000, 1_000_000),
    told("HK.00700", 1_480_638, 1_888_755),
    told("HK.06089", 17_076, 9_350),
    told("HK.08014", 395_062, 0),
    told("HK.00941", None, 5),
]
REVISED = [
    told("HK.00388", 1_040_000, 1_000_000, kind=EventType.REVISED),
    told("HK.01810", 700_000, 1_000_000, kind=EventType.REVISED),
]


def test_a_release_as_a_table() -> None:
    """Columns line up, the biggest move stands first, what is absent is a dash."""
    message = digest(ONE_DAY, limit=2_000, missing=12)
    assert text_of(message, monospaced=True) == (
        "Hong Kong short interest, 13 Nov 2026: 5 reported, 12 missing\n"
        "2 up, 1 down, 1 unchanged; largest change in % first\n"
        "```\n"
        "symbol        change      short    ratio\n"
        "HK.06089    +82.63 %     17,076   0.17 %\n"
        "HK.00700    -21.61 %  1,480,638  14.81 %\n"
        "HK.08014  from below    395,062   3.95 %\n"
        "HK.00005   unchanged  1,000,000  10.00 %\n"
        "HK.00941           –          –        –\n"
        "```"
    )


def test_what_is_below_the_threshold() -> None:
    """Its 0 is no figure: it is told as that, has no change, and stands last."""
    below = told("HK.00001", 0, 0), told("HK.00002", 0, 1_000_000)
    assert text_of(digest([*below, ONE_DAY[0], ONE_DAY[2]], limit=2_000), monospaced=True) == (
        "Hong Kong short interest, 13 Nov 2026: 4 reported\n"
        "1 up, 0 down, 1 unchanged, 2 below threshold; largest change in % first\n"
        "```\n"
        "symbol       change            short    ratio\n"
        "HK.06089   +82.63 %           17,076   0.17 %\n"
        "HK.00005  unchanged        1,000,000  10.00 %\n"
        "HK.00001          –  below threshold        –\n"
        "HK.00002          –  below threshold        –\n"
        "```"
    )
    only = digest([below[1]], limit=2_000)
    assert text_of(only) == "HK.00002 is below the reporting threshold on 13 Nov 2026."
    above = text_of(digest([ONE_DAY[3]], limit=2_000))
    assert above.startswith("HK.08014 reported 395,062 shares short on 13 Nov 2026, below the")
    assert "from 0" in text_of(digest([told("US.A", 5, 0), told("US.B", 5, 1)], limit=2_000))


def test_a_release_with_revisions_as_lines() -> None:
    """Where columns would not line up there are none; revisions say old and new."""
    message = digest(ONE_DAY[:2] + REVISED, limit=2_000)
    assert message.text == (
        "Hong Kong short interest, 13 Nov 2026: 2 reported, 2 revised\n"
        "0 up, 1 down, 1 unchanged; largest change in % first\n"
        "symbol  change  short  ratio\n"
        "HK.00700  -21.61 %  1,480,638  14.81 %\n"
        "HK.00005  unchanged  1,000,000  10.00 %\n"
        "Revised:\n"
        "HK.01810  -30.00 %  1,000,000  →  700,000\n"
        "HK.00388  +4.00 %  1,000,000  →  1,040,000"
    )


SPLIT = told(
    "HK.00700",
    500,
    2_500,
    kind=EventType.RESTATED,
    restated=Restatement(
        0.2, (date(2026, 5, 8), date(2026, 11, 13)), "aggregated_short", Cause.RESCALED
    ),
)
FOUND = told("HK.00005", 1_000_000, 900_000, kind=EventType.BACKFILLED)


def restated(cause: str | None, first: str = "2026-05-08") -> StreamEvent:
    """Return an event that says so, as any version or client may have written it."""
    assert SPLIT.restated is not None
    told = replace(SPLIT.restated, cause=cause, first=first, days=1, factor=None)
    return replace(SPLIT, restated=told)


def test_what_was_not_reported_is_not_called_so() -> None:
    """A day found later and a history that changed as a whole are counted and listed as such."""
    message = digest([ONE_DAY[1], SPLIT, FOUND, REVISED[0]], limit=2_000, missing=3)
    assert message.text == (
        "Hong Kong short interest, 13 Nov 2026: "
        "1 reported, 3 missing, 1 revised, 1 backfilled, 1 restated\n"
        "0 up, 1 down, 0 unchanged\n"
        "symbol  change  short  ratio\n"
        "HK.00700  -21.61 %  1,480,638  14.81 %\n"
        "Revised:\n"
        "HK.00388  +4.00 %  1,000,000  →  1,040,000\n"
        "Backfilled:\n"
        "HK.00005  1,000,000  10.00 %\n"
        "Restated:\n"
        "HK.00700  2 days  shares × 0.2"
    )


def test_us_rows_tell_the_days_to_cover() -> None:
    """A row without them keeps its place in the column."""
    rows = [told("US.AAPL", 110_000, 100_000, cover=2.5), told("US.GME", 90_000, 100_000)]
    assert body_of(digest(rows, limit=2_000), monospaced=True) == (
        "1 up, 1 down, 0 unchanged; largest change in % first\n"
        "```\n"
        "symbol     change    short   ratio  to cover\n"
        "US.AAPL  +10.00 %  110,000  1.10 %    2.50 d\n"
        "US.GME   -10.00 %   90,000  0.90 %         –\n"
        "```"
    )


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (
            ONE_DAY[1],
            (
                "HK.00700 reported 1,480,638 shares short on 13 Nov 2026, -408,117 (-21.61 %) "
                "since 6 Nov 2026; ratio 14.81 %."
            ),
        ),
        (
            ONE_DAY[0],
            (
                "HK.00005 reported 1,000,000 shares short on 13 Nov 2026, unchanged since "
                "6 Nov 2026; ratio 10.00 %."
            ),
        ),
        (
            FOUND,
            (
                "HK.00005: 13 Nov 2026, which was missing, was backfilled: 1,000,000 shares short, "
                "ratio 10.00 %."
            ),
        ),
        (
            SPLIT,
            (
                "HK.00700 was restated: the shares of 2 days from 8 May 2026 to 13 Nov 2026 were "
                "multiplied by 0.2, as after a split."
            ),
        ),
        (
            restated("recomputed"),
            (
                "HK.00700 was restated: the ratios of 1 day from 8 May 2026 to 13 Nov 2026 were "
                "computed anew."
            ),
        ),
        (
            restated("replaced", "x\x1b[2J"),
            (
                "HK.00700 was restated: the figures of 1 day were replaced, as when another "
                "company gets the code."
            ),
        ),
        (restated("moved", ""), "HK.00700 was restated: the figures of 1 day changed."),
        (replace(SPLIT, restated=None), "HK.00700 was restated."),
        (ONE_DAY[4], "HK.00941 reported – shares short on 13 Nov 2026; ratio –."),
        (
            REVISED[0],
            (
                "HK.00388 was revised for 13 Nov 2026: 1,000,000 → 1,040,000 shares short "
                "(+4.00 %), ratio 10.00 % → 10.40 %."
            ),
        ),
        (
            told("US.AAPL", 110_000, 100_000, cover=2.5),
            (
                "US.AAPL reported 110,000 shares short on 13 Nov 2026, +10,000 (+10.00 %) since "
                "6 Nov 2026; ratio 1.10 %, 2.50 days to cover."
            ),
        ),
    ],
)
def test_one_event_is_one_sentence(event: StreamEvent, sentence: str) -> None:
    """It has no title and needs no table."""
    assert digest([event], limit=2_000).text == sentence


DAY = date(2026, 11, 13)
MOVERS = (
    Mover(Code("HK.00700"), "*TENCENT*", 51_480_638, -408_117, -0.7865, 1, 100.0),
    Mover(Code("HK.00005"), None, 5, 5, None, 2, 50.0),
)
LOST = tuple(Code(f"HK.{n:05}") for n in range(1, 1501))


@pytest.mark.parametrize(
    ("notice", "sentence"),
    [
        (
            Detected(HONG_KONG, DAY, SEEN, Code("HK.01613")),
            "Hong Kong: the report of 13 Nov 2026 is out, first seen at HK.01613.",
        ),
        (
            Completed(HONG_KONG, DAY, SEEN, 299, (Code("HK.00700"),)),
            "Hong Kong, 13 Nov 2026: the report is complete: 299 of 300 symbols; missing HK.00700.",
        ),
        (
            Completed(UNITED_STATES, DAY, SEEN, 5000),
            "US, 13 Nov 2026: the report is complete: 5,000 of 5,000 symbols.",
        ),
        (
            Completed(HONG_KONG, DAY, SEEN, 2, (), MOVERS),
            (
                "Hong Kong, 13 Nov 2026: the report is complete: 2 of 2 symbols. "
                "Biggest moves in shares:\n"
                "1. TENCENT (HK.00700) -408,117 (-0.79 %)\n"
                "2. HK.00005 +5"
            ),
        ),
        (
            Completed(HONG_KONG, DAY, SEEN, 0, LOST),
            (
                "Hong Kong, 13 Nov 2026: the report is complete: 0 of 1,500 symbols; missing "
                f"{', '.join(LOST[:MOST_ROWS])} and 1,480 more."
            ),
        ),
    ],
)
def test_a_notice_is_one_sentence(notice: Notice, sentence: str) -> None:
    """Which market and day, who is missing, and who moved most; many are counted."""
    assert announcement([notice_of(notice)], limit=2_000) == ChatMessage("", (sentence,))
    assert len(announcement([notice_of(notice)] * 20, limit=300).text) <= 300


def test_a_sweep_of_500_symbols_is_one_message() -> None:
    """A whole release of a made-up market fits each channel; what does not fit is counted."""
    world = World(made_up={"HK": 560}, tencent=False, history=3)
    events = [
        compare(code, rows, Known(), observed_at=SEEN, history=3).events[-1]
        for code in world.codes()
        if (rows := world.records(code, SEEN))
    ]
    entries = [replace(event_of(encode(e)), type=str(EventType.REPORTED)) for e in events]
    for limit, rows_shown in ((40_000, MOST_ROWS), (2_000, MOST_ROWS), (400, 5)):
        message = digest(entries, limit=limit, missing=0, size=aligned_size)
        body = body_of(message, monospaced=True)
        assert len(re.findall(r"^HK\.", body, re.MULTILINE)) == rows_shown
        assert body.endswith(f"… and {len(entries) - rows_shown:,} more")
        assert "missing" not in message.title


@pytest.mark.parametrize(
    ("watermarks", "count"),
    [
        ({}, 0),
        ({"HK.00700": "2026-11-13", "HK.00005": "2026-11-06", "HK.00388": "2026-11-06"}, 2),
        ({"HK.00700": "2026-11-20", "HK.00941": "2026-10-30", "US.AAPL": "2026-11-10"}, 0),
        ({"HK.00005": "2026-11-06", "HK.80700": "2026-11-06"}, 1),
    ],
    ids=["nothing", "two", "ahead, behind, elsewhere", "not followed"],
)
def test_who_is_missing(watermarks: dict[str, str], count: int) -> None:
    """Only who had the day before is waited for, in the market and among the codes followed."""
    known = {Code(code): date.fromisoformat(day) for code, day in watermarks.items()}
    selects = Selection(codes=("HK.0*", "US.*")).selects
    assert missing(known, HONG_KONG, date(2026, 11, 13), selects=selects) == count


@pytest.mark.parametrize("market", all_markets())
@pytest.mark.parametrize("day", [date.min, date(1969, 12, 31), date.max])
def test_nobody_is_missing_on_a_day_without_reports(market: Market, day: date) -> None:
    """A forged day at either end of the calendar raises nothing: who is missing is not known."""
    known = {Code("HK.00700"): date(2026, 11, 13), Code("US.AAPL"): date(2026, 11, 13)}
    assert missing(known, market, day, selects=lambda _: True) is None


@given(st.sampled_from(all_markets()), st.dates())
def test_any_day_may_be_asked_for(market: Market, day: date) -> None:
    """Whatever day an entry names, asking who is missing raises nothing."""
    known = {Code("HK.00700"): date(2026, 11, 13)}
    assert missing(known, market, day, selects=lambda _: True) in {None, 0, 1}


shares = st.none() | st.integers(0, 10**15)
entries = st.lists(
    st.builds(
        told,
        st.integers(0, 99_999).map("HK.{:05}".format),
        shares,
        shares,
        kind=st.sampled_from(EventType),
    ),
    min_size=1,
    max_size=60,
)


@given(entries, st.integers(100, 5_000), st.none() | st.integers(0, 9_999), st.booleans())
def test_never_over_the_limit(
    rows: list[StreamEvent],
    limit: int,
    missing: int | None,
    monospaced: bool,  # noqa: FBT001
) -> None:
    """Whatever is told, the message fits, has something to say and closes its blocks."""
    size = aligned_size if monospaced else in_characters
    message = digest(rows, limit=limit, missing=missing, size=size)
    text = text_of(message, monospaced=monospaced)
    assert len(text) <= limit
    assert message.body
    assert text.count("```") % 2 == 0


@given(entries)
def test_the_biggest_move_comes_first(rows: list[StreamEvent]) -> None:
    """No percentage in a table is followed by a bigger one."""
    body = digest([*rows, ONE_DAY[0]], limit=40_000).body
    for part in re.split("Revised:|Backfilled:|Restated:", body):
        moves = [abs(float(found.replace(",", ""))) for found in _PERCENT.findall(part)]
        assert moves == sorted(moves, reverse=True)


_PERCENT = re.compile(r"^HK\.\d+  ([+-][\d,.]+) %", re.MULTILINE)


def named(event: StreamEvent, name: str) -> StreamEvent:
    """Return the same event of a symbol with this name."""
    return replace(event, name=name)


def test_names_in_a_table() -> None:
    """Columns line up with wide characters, too, and a long name is cut."""
    rows = [
        named(ONE_DAY[1], "騰訊控股"),
        named(ONE_DAY[2], "A name that is far too long for a row of a table"),
        ONE_DAY[0],
    ]
    body = body_of(digest(rows, limit=2_000), monospaced=True)
    assert body == (
        "1 up, 1 down, 1 unchanged; largest change in % first\n"
        "```\n"
        "symbol                                  change      short    ratio\n"
        "A name that is far too … (HK.06089)   +82.63 %     17,076   0.17 %\n"
        "騰訊控股 (HK.00700)                   -21.61 %  1,480,638  14.81 %\n"
        "HK.00005                             unchanged  1,000,000  10.00 %\n"
        "```"
    )


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("TENCENT", "TENCENT (HK.00700)"),
        ("A&B 'Co'", "A&B 'Co' (HK.00700)"),
        ("<!channel> @everyone `rm`", "!channel everyone rm (HK.00700)"),
        ('<at user_id="all"></at>', 'at user id="all" /at (HK.00700)'),
        ("[x](https://example.org)", "x (https example.org) (HK.00700)"),
        ("**", "HK.00700"),
    ],
)
def test_a_name_is_no_markup(name: str, title: str) -> None:
    """What a chat may take for formatting, a link or a mention of everybody is left out."""
    text = digest([named(ONE_DAY[1], name)], limit=2_000).text
    assert text.startswith(f"{title} reported 1,480,638 shares short")
