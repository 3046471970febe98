"""What the log says of an endpoint: who, what, up to where, and the command that brings it back."""

import re

import pytest

from poller.delivery.log_lines import (
    disabled_text,
    dropped_text,
    gone_text,
    missed_text,
    new_text,
    queued_again_text,
    shown_key,
    start_texts,
    subject_of,
    unreadable_text,
)
from poller.delivery.queued import Parked
from poller.store.position import Start
from poller.store.store import Stream

FIRST, LAST = "1790000000000-0", "1790000060500-3"  # 2026-09-21T14:13:20Z, and a minute later
NAMES = ["one", "two", "three", "four", "five"]


def test_one_is_named_as_a_subject() -> None:
    """The same subject in every line, so that its trouble and its end belong together."""
    subject = f"{subject_of('desk')}: "
    lines = [
        gone_text(["desk"], Stream.EVENTS, FIRST),
        new_text(["desk"], Stream.EVENTS, FIRST),
        missed_text(["desk"], Stream.EVENTS, 2, FIRST, LAST),
        dropped_text("desk"),
        unreadable_text("desk", Parked("a key", "text", "no JSON")),
        queued_again_text("desk"),
    ]
    assert all(line.startswith(subject) for line in lines)
    assert all("poller webhook replay desk --since" in lines[n] for n in (1, 2, 3))
    assert disabled_text("desk", "410 Gone") == (
        "disabled: 410 Gone; once it is fixed: poller webhook enable desk"
    )


@pytest.mark.parametrize(
    ("count", "who"),
    [
        (1, "webhook one:"),
        (2, "webhooks one, two:"),
        (3, "webhooks one, two, three:"),
        (5, "webhooks one, two, three and 2 more:"),
    ],
)
def test_of_many_a_few_are_named(count: int, who: str) -> None:
    """The others are counted, and what to type leaves the name open."""
    line = new_text(NAMES[:count], Stream.EVENTS, FIRST)
    assert line.startswith(who)
    assert f"replay {'one' if count == 1 else 'NAME'} " in line
    missed = missed_text(NAMES[:count], Stream.EVENTS, 1, FIRST, LAST)
    assert f"replay {'one' if count == 1 else 'NAME'} " in missed


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, ": 1 entry of"), (1_234, ": 1,234 entries of"), (None, ": an unknown number of entries")],
)
def test_what_was_missed_can_be_had_from_history(number: int | None, words: str) -> None:
    """The time span holds every event of the entries, and both ids are named."""
    line = missed_text(["desk"], Stream.EVENTS, number, FIRST, LAST)
    assert words in line
    assert f"after {FIRST} and up to {LAST} " in line
    assert line.endswith("--since 2026-09-21T14:12:20Z --until 2026-09-21T14:14:21Z")


def test_notices_are_in_no_history() -> None:
    """So no command is named that would bring nothing."""
    line = missed_text(["desk"], Stream.RELEASES, 2, FIRST, LAST)
    assert "2 entries" in line
    assert "replay" not in line


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (Start(FIRST), []),
        (Start(FIRST, gone=True), ["was gone, it goes on after"]),
        (Start(FIRST, missed=LAST), ["unknown number"]),
        (Start(FIRST, gone=True, missed=LAST), ["was gone, it goes on after", "unknown number"]),
    ],
)
def test_a_start_is_told_only_when_something_is_amiss(start: Start, said: list[str]) -> None:
    """A line for a group that was deleted, and one for what may be missing."""
    lines = start_texts("desk", Stream.EVENTS, start)
    assert len(lines) == len(said)
    assert all(words in line for words, line in zip(said, lines, strict=True))


def test_a_foreign_key_is_shown_in_part_and_harmless() -> None:
    """Anybody may have written it: its beginning as a literal, with the reason."""
    line = unreadable_text("desk", Parked("\x1b[31m" + "k" * 200, "text", "no JSON"))
    assert "\x1b" not in line
    assert "(no JSON)" in line
    assert len(re.findall("k+", shown_key("k" * 200))[0]) == 80
