"""Whatever somebody else wrote: shown, it is safe, short, and still to be read."""

import json
import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poller.printable import LIMIT, printable, printable_json, printable_lines

TRICKS = "\x1b\x9b\x85\x07\x7f\r\n\t\u202e\u2066\u200f\u061c\u2028\u200b\u200d\ufeff\u2800\u3164"
texts = st.text(
    st.one_of(st.characters(), st.sampled_from(TRICKS + "\ud800\ue000\U000e0041\u0301"))
)


class Mute:
    """Something that cannot be told."""

    def __str__(self) -> str:
        """Fail, as code of other people may."""
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m\x85\x7f\x00", r"\x9b31m\x85\x7f\x00"),
        ("a\r\n\tb", r"a\r\n\tb"),
        ("\u202eexe.\u2066\u061c\u200e", r"\u202eexe.\u2066\u061c\u200e"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("a\u200bb\u2060\ufeff\u3164\u115f\u034f", r"a\u200bb\u2060\ufeff\u3164\u115f\u034f"),
        ("x\ufe00\U000e0100\U000e0041", r"x\ufe00\U000e0100\U000e0041"),
        ("\ud83d\udc4d \ue000 \uffff", r"\ud83d\udc4d \ue000 \uffff"),
        ("á" + "\u0301" * 5, "á" + "\u0301" * 4 + r"\u0301"),
        ("1\u00a0000\u3000股", "1 000 股"),
        (
            "腾讯控股 café é ⚠️ 👍🏽 · … – “x” 日本語 عربي 한국어",
            "腾讯控股 café é ⚠️ 👍🏽 · … – “x” 日本語 عربي 한국어",
        ),
        (b"\xe4\xb8\xad\xff\x1b", r"中\xff\x1b"),
        (ValueError("odd"), "odd"),
        (Mute(), "<Mute that cannot be shown>"),
        (None, "None"),
    ],
)
def test_what_is_shown(text: object, shown: str) -> None:
    """What a terminal obeys or a person cannot see becomes an escape, everything else stays."""
    assert printable(text) == shown


def test_a_number_too_long_to_be_written() -> None:
    """What Python itself does not turn into text is named by its type."""
    assert printable(10**5_000) == "<int that cannot be shown>"


@given(texts, st.integers(1, 40))
@example("\x1b" * 11, 10)
def test_what_is_shown_is_safe_and_short(text: str, limit: int) -> None:
    """One line a terminal shows as it is, encoded in UTF-8, never longer, shown again the same."""
    shown = printable(text, limit)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert len(shown) <= limit
    assert printable(shown, limit) == shown
    assert not any(unicodedata.category(each) in {"Cc", "Cf", "Cs", "Co", "Cn"} for each in shown)


@given(texts, st.integers(1, 40))
def test_an_escape_is_never_cut(text: str, limit: int) -> None:
    """What is cut is a beginning of the whole that ends between two characters of the text."""
    whole = printable(text, 10_000)
    shown = printable(text, limit)
    if shown != whole:
        assert shown.endswith("…")
        ends = [printable(text[:end], 10_000) for end in range(len(text) + 1)]
        assert shown[:-1] in ends


@given(texts, st.integers(1, 40))
def test_lines_stay_lines(text: str, limit: int) -> None:
    """Shown line by line, each line is what it would be alone; the limit is of all of them."""
    shown = printable_lines(text, limit)
    assert len(shown) <= limit
    assert all(line.isprintable() for line in shown.split("\n"))
    if "…" not in shown:
        assert shown == "\n".join(printable(line, 10_000) for line in text.split("\n"))


@given(
    st.recursive(
        texts | st.integers() | st.none(), lambda x: st.lists(x) | st.dictionaries(texts, x)
    )
)
def test_json_is_exact_and_safe(value: object) -> None:
    """Read again, it is what it was; looked at, it is one line without anything to obey."""
    shown = printable_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(shown) == json.loads(json.dumps(value))
    assert not any(
        printable(each) != each for each in shown if each != "\u00a0" and not each.isspace()
    )


def test_a_huge_text_costs_nothing() -> None:
    """A hundred megabytes are cut before they are looked at."""
    huge = "\x1b" * 100_000_000
    begun = time.process_time()
    assert len(printable(huge)) <= LIMIT
    assert len(printable_lines(huge)) <= LIMIT
    assert len(printable(huge.encode())) <= LIMIT
    assert time.process_time() - begun < 5  # looking at each takes minutes
