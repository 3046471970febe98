"""What a person reads on a terminal. In process."""

import os
import pty
import subprocess
import sys
import termios
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.text import Text

from poller import show
from poller.cli import watch
from poller.cli.explain import hours_or_days, when_polled
from poller.cli.webhooks import is_due, state_in_words
from poller.delivery.outbox import Status
from poller.events import encode
from poller.markets.hk import HONG_KONG, HkRecord
from poller.model import Cause, Change, Code, Event, EventType, Restatement, Vintage
from poller.schedule.notice import Completed, Detected, Mover
from poller.settings.config import load
from poller.store.store import Entry
from poller.telemetry.status import Poll, Polls, ProcessReport, ReleaseState

SEEN = datetime(2026, 5, 8, 9, 15, 2, tzinfo=UTC)
NOW, DAY = datetime(2026, 11, 24, 9, tzinfo=UTC), date(2026, 11, 13)


def vintage(shares: int) -> Vintage:
    """Return a day of a Hong Kong symbol."""
    return Vintage(HkRecord(1777478400, "2026-04-30", shares, 0.5, 10.0, 9.0), 0, SEEN)


NAME = "騰訊控股有限公司"
CHANGE = Change(shares=-408_117, percent=-0.79)
EVENTS = [
    Event(EventType.REPORTED, Code("HK.00700"), vintage(51_480_638), None, CHANGE, name=NAME),
    Event(EventType.REPORTED, Code("HK.00700"), vintage(0), None, None, name=NAME),
    Event(
        EventType.RESTATED,
        Code("HK.00700"),
        vintage(7),
        None,
        None,
        Restatement(1.02, (DAY,) * 48, "aggregated_short_ratio", Cause.RECOMPUTED),
        name=NAME,
    ),
]
LINES = [encode(event) for event in EVENTS]
MOVER = Mover(Code("HK.00700"), NAME, 51_480_638, -408_117, -0.79, 1, 100.0)
NOTES = [
    encode(Detected(HONG_KONG, DAY, SEEN, Code("HK.00700"), NAME)),
    encode(Completed(HONG_KONG, DAY, SEEN, 26, (Code("HK.00005"),), (MOVER,) * 3)),
]


@pytest.mark.parametrize(
    ("shares", "told"), [(0, "below threshold"), (51_480_638, "51,480,638 short")]
)
def test_a_line_of_tail(shares: int, told: str) -> None:
    """It has the date, and does not call what need not be reported none."""
    event = Event(EventType.REPORTED, Code("HK.00700"), vintage(shares), None, None)
    line = show.entry_line(Entry("1-0", encode(event))).plain
    assert line.startswith("05-08 09:15:02  HK.00700")
    assert told in line
    assert " 0 short" not in line


def test_a_name_ends_a_line_of_tail() -> None:
    """After the figures, whose columns it would shift; one that is not known is left out."""
    event = Event(
        EventType.REPORTED, Code("HK.00700"), vintage(7), None, None, name="騰訊\u202e控股"
    )
    line = show.entry_line(Entry("1-0", encode(event))).plain
    without = show.entry_line(Entry("1-0", encode(replace(event, name=None)))).plain
    assert line == f"{without}  騰訊控股"


@pytest.mark.parametrize(
    "told",
    [
        "[1]",
        '{"record":[],"change":null}',
        '{"record":{},"change":{}}',
        '{"record":{"shares_short":"x"},"change":7}',
        '{"record":{},"change":null,"restated":{}}',
        '{"record":{},"change":null,"flags":null}',
    ],
)
def test_what_others_appended_is_a_line(told: str) -> None:
    """An entry that only looks like an event is named, and ends nothing."""
    event = Event(EventType.REPORTED, Code("HK.00700"), vintage(7), None, None)
    fields = dict(encode(event)) | {"data": told}
    assert "1-0" in show.entry_line(Entry("1-0", fields)).plain


def test_a_column_of_figures_has_the_decimals_of_its_longest() -> None:
    """Two at least, four at most; points stand below each other, and what is absent is a dash."""
    texts = [cell.plain for cell in show.decimal_cells([467.8, 0.013, None, 1 / 3, 5000.0])]
    assert texts == ["467.8000", "0.0130", "-", "0.3333", "5,000.0000"]
    assert [cell.plain for cell in show.decimal_cells([1.0, None])] == ["1.00", "-"]


@pytest.mark.parametrize(("width", "longest"), [(70, 72), (79, 80), (90, 92)])
def test_figures_are_never_broken(
    width: int, longest: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between columns is one space where two do not fit; a line is rather longer than that."""
    cells = [Text("2026-04-30"), Text("9" * (width - 10))]
    show.print_figures(("day", "shares"), [cells])
    header, line = capsys.readouterr().out.splitlines()
    assert len(line) == longest
    assert header.split() == ["day", "shares"]
    assert line.split() == [cell.plain for cell in cells]


def test_a_narrow_terminal_breaks_no_value() -> None:
    """Sentences wrap between their words; where that is not enough, the table is wider."""
    row = ("HK.00700", "held", "one of very many that moved as no market ever moves", "51,480,638")
    told = in_terminal(48, ("code", "state", "reason", "shares"), row)
    assert all(text in told for text in (*row[:2], row[3], *row[2].split()))
    assert max(map(len, told.splitlines())) <= 48
    assert "51,480,638" in in_terminal(10, ("code", "shares"), (row[0], row[3]))


def test_a_narrow_terminal_breaks_no_instant() -> None:
    """Date and time stay together, alone in their cell or before a sentence."""
    at = "2026-11-24 09:00:00"
    row = ("desk", at, f"{at} it answered 503 and nobody knows why it does that", at)
    told = in_terminal(48, ("name", "last success", "last error", "next attempt"), row)
    assert told.count(at) == 3


def in_terminal(columns: int, names: tuple[str, ...], row: tuple[str, ...]) -> str:
    """Return what a table of one row shows on a terminal of so many columns."""
    return shown(columns, f"from poller import show; show.print_table({names!r}, [{row!r}])")


def shown(columns: int, code: str, **variables: str) -> str:
    """Return what a program shows on a terminal of so many columns."""
    primary, secondary = pty.openpty()
    termios.tcsetwinsize(secondary, (24, columns))
    unset = {"COLUMNS", "LINES", "FORCE_COLOR"}
    environment = {n: t for n, t in os.environ.items() if n not in unset} | {
        "NO_COLOR": "1",
        "TERM": "dumb",
        **variables,
    }
    with os.fdopen(primary, "rb", buffering=0) as reader:
        subprocess.run([sys.executable, "-c", code], stdout=secondary, env=environment, check=True)
        os.close(secondary)
        return reader.read(65_536).decode().replace("\r", "")


EVERYTHING = """
from rich.text import Text
from poller import show
from poller.store.store import Entry
from tests.test_show import LINES, NOTES
for fields in LINES:
    show.console().print(show.entry_line(Entry("1-0", fields)))
for fields in NOTES:
    show.console().print(show.release_line(Entry("1-0", fields)))
show.say("next poll  HK is probed next at 2026-11-28 21:36:16 UTC: one of 27 symbols watched in "
    "rotation, 5,000 s later than usual; see: poller quarantine list", indent=11)
names = ("timestamp_str", "aggregated_short", "aggregated_short_ratio", "close_price", "zscore")
show.print_figures(names, [[Text(t) for t in ("2026-05-15", "46,711,374", "0.51", "467.80", "+1")]])
names = ("key", "value", "from")
show.print_table(names, [("webhooks.0.file", "/run/secrets/desk", "/etc/poller/" + "x" * 40)])
"""

WHOLE = [
    "05-08 09:15:02  HK.00700  2026-04-30  reported",
    "51,480,638 short",
    "-408,117 (-0.79 %)",
    "騰訊控股有限公司",
    "below threshold",
    "48 days from 2026-11-13",
    "first shown by",
    "26 of 27 symbols;",
    "missing: HK.00005;",
    "biggest: 騰訊控股有限公司 (HK.00700)",
    "2026-11-28 21:36:16 UTC:",
    "5,000 s",
    "poller quarantine list",
    "/run/secrets/desk",
    "/etc/poller/" + "x" * 40,
    *("timestamp_str", "aggregated_short", "aggregated_short_ratio", "close_price", "zscore"),
    *("46,711,374", "0.51", "467.80", "+1"),
]


@pytest.mark.parametrize(("columns", "groups"), [(80, 1), (64, 2)])
def test_nothing_is_wider_than_a_terminal_and_no_value_is_broken(columns: int, groups: int) -> None:
    """Lines of `tail`, sentences and tables, with characters that take two columns."""
    told = shown(columns, EVERYTHING)
    assert [line for line in told.splitlines() if cell_len(line) > columns] == []
    assert [each for each in WHOLE if each not in told] == []
    assert "\x1b" not in told
    assert told.count("2026-05-15") == groups  # the day stands before each group of columns


def test_a_wide_terminal_has_one_line_an_event_and_colours() -> None:
    """Wrapping is for narrow ones; NO_COLOR, tested above, switches colours off."""
    told = shown(300, EVERYTHING, NO_COLOR="", TERM="xterm-256color")
    assert len(told.splitlines()) == len(LINES) + len(NOTES) + 5
    assert "\x1b[" in told


def test_where_stdout_is_no_terminal_a_line_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """So that other programs can read it, in the width of its values."""
    show.say("a sentence " * 40)
    for fields in LINES:
        show.console().print(show.entry_line(Entry("1-0", fields)))
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(LINES)


@pytest.mark.parametrize(("minutes", "told"), [(None, False), (-1, True), (0, True), (1, False)])
def test_an_attempt_that_could_be_made_is_due(minutes: int | None, *, told: bool) -> None:
    """A moment that has passed is not announced as one to come."""
    following = None if minutes is None else NOW + timedelta(minutes=minutes)
    assert is_due(Status(next_attempt=following), NOW) == told


def test_an_empty_table_is_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    """A header with nothing below it leaves open whether something is missing."""
    show.print_table(("event", "attempts"), [])
    assert capsys.readouterr().out == "none\n"


@pytest.mark.parametrize(("hours", "told"), [(0, "0 h"), (47, "47 h"), (4657, "194 days")])
def test_a_span_is_told_in_days_once_it_is_long(hours: int, told: str) -> None:
    """Nobody counts thousands of hours."""
    assert hours_or_days(timedelta(hours=hours)) == told


def active(state: ReleaseState) -> ProcessReport:
    """Return the report of a poller whose market Hong Kong is in this state."""
    return ProcessReport(NOW, "run", "1", 1, (), 27, {"HK": state}, {})


@pytest.mark.parametrize(
    ("polls", "report", "newest", "told"),
    [
        (Polls(next_at=NOW), active(ReleaseState()), DAY, "2026-11-24 09:00:00 UTC"),
        (
            Polls(),
            active(ReleaseState(day=DAY, next_at=NOW)),
            DAY,
            "HK is probed next at 2026-11-24 09:00:00 UTC",
        ),
        (Polls(), active(ReleaseState(day=DAY)), DAY, "HK is probed now"),
        (
            Polls(),
            active(ReleaseState(phase="sweeping", day=DAY, wanted=1200, covered=1100)),
            DAY - timedelta(weeks=1),
            (
                "by 09:02:00 UTC, as far as the budget allows; "
                "1,100 of 1,200 symbols of its report are read"
            ),
        ),
        (
            Polls((Poll(NOW, "no rows"),)),
            active(ReleaseState(day=DAY, next_at=NOW)),
            None,
            "by 2026-11-25 09:00:00 UTC",
        ),
        (Polls(), active(ReleaseState(day=DAY, next_at=NOW)), None, "within a minute"),
        (Polls(), None, DAY, "once a poller has reported"),
    ],
)
def test_the_next_poll_is_told_as_a_time(
    polls: Polls, report: ProcessReport | None, newest: date | None, told: str
) -> None:
    """A symbol's own moment, or its market's; never only that its turn will come."""
    assert when_polled(polls, report, Code("HK.00700"), newest) == told


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (Status(), "not used yet"),
        (Status(last_success=NOW), "active"),
        (Status(last_error="503", last_error_at=NOW), "active"),
        (Status(last_error="503", last_error_at=NOW, failing_since=NOW), "failing"),
        (Status(disabled="it answered 410"), "disabled"),
    ],
)
def test_an_endpoint_that_was_never_used_is_not_said_to_work(status: Status, told: str) -> None:
    """Nothing is known of it yet."""
    assert state_in_words(status) == told


def test_a_last_column_gets_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    """A table of long names fits 80 columns; wide characters count twice, and some always stay."""
    figures = [Text("1,234,567")] * 3
    for name in ("x" * 200, "騰訊控股有限公司" * 20):
        show.print_figures(("a", "b", "c", "name"), [[*figures, Text(name)]], cut_last=True)
        line = capsys.readouterr().out.splitlines()[1]
        assert 78 <= cell_len(line) <= 80
        assert line.endswith("…")
    wide = [Text("9" * 30)] * 3
    show.print_figures(("a", "b", "c", "name"), [[*wide, Text("x" * 200)]], cut_last=True)
    assert f" {'x' * 11}…" in capsys.readouterr().out


async def test_removing_what_was_never_watched_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stays excluded, and the line says how to undo that; a watched code is just removed."""
    (tmp_path / "poller.toml").write_text(f'state_dir = "{tmp_path}"', encoding="utf-8")
    config = load(tmp_path / "poller.toml", {})
    await watch.set_watched(config, [Code("HK.00700"), Code("US.MSFT")], wanted=False)
    out, err = capsys.readouterr()
    known, unknown = out.splitlines()
    assert known == "HK.00700 no longer watched"
    assert unknown.startswith("US.MSFT was not watched")
    assert unknown.endswith("undo: poller watch add US.MSFT")
    assert err.startswith(f"poller: no poller runs on this state (state_dir {tmp_path})")
