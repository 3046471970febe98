"""A market is one file: nobody outside the room asks which market one is or names its columns."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest

import poller
from poller.markets import Record, all_markets, columns_of, register
from poller.markets.hk import HONG_KONG, HkRecord
from tests.machine import scaled

ROOT: Final = Path(poller.__file__).parent
ROOM: Final = ROOT / "markets"
SOURCES: Final = sorted(path for path in ROOT.rglob("*.py") if ROOM not in path.parents)
OTHERS: Final = sorted(
    path for kind in ("jinja", "js", "lua", "html") for path in ROOT.rglob(f"*.{kind}")
)

NEUTRAL: Final = {name for name, each in vars(Record).items() if isinstance(each, property)}
"""What every record has, whatever its columns are called."""

COLUMNS: Final = {
    column
    for market in all_markets()
    for column in (*market.columns, *market.vendor_names.values())
} - {*NEUTRAL, *columns_of(Record)}
"""What only the vendor, or a market, calls a figure."""

NAMES: Final = {text for market in all_markets() for text in (market.name, f"{market}.")}
"""What one compares with to find out which market something is of."""

OWN: Final = {
    name
    for market in all_markets()
    for name, each in vars(import_module(market.record.__module__)).items()
    if each is market or each is market.record
}
"""What the module of a market calls it and its record."""


def offences(source: str) -> list[str]:
    """Return what names a market or a column of its own in Python, by line."""
    tree = ast.parse(source)
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        f"line {getattr(node, 'lineno', 0)}: {name}"
        for node in ast.walk(tree)
        if id(node) not in prose
        for name in _named(node)
        if name in COLUMNS | OWN or (isinstance(node, ast.Constant) and name in NAMES)
    ]


def _named(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Constant(str(text)):
            yield text
            yield from text.split(".")[1:]  # record.shares_short
        case ast.Name(name) | ast.Attribute(_, name) | ast.alias(name):
            yield name
        case ast.keyword(str(name)) | ast.arg(name):
            yield name
        case ast.MatchClass(_, _, names):
            yield from names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_outside_names_a_market(path: Path) -> None:
    """No comparison with a market, no table of them, no column that is only the vendor's."""
    assert offences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_template_or_script_names_a_market(path: Path) -> None:
    """Pages, their scripts and those of Redis neither."""
    text = path.read_text(encoding="utf-8")
    assert not re.findall(rf"""(['"])({"|".join(map(re.escape, NAMES))})\1""", text)
    assert not COLUMNS & set(re.findall(r"\w+", text))


@pytest.mark.parametrize(
    "source",
    [
        'if market == "HK": pass',
        'if str(market) in {"US"}: pass',
        'match market.name:\n    case "HK": pass',
        'ZONES = {"HK": 8}',
        'if code.startswith("US."): pass',
        "if market is HONG_KONG: pass",
        "from poller.markets.us import UNITED_STATES",
        "if isinstance(record, HkRecord): pass",
        "shares = record.shares_short",
        'shares = row["aggregated_short"]',
        "replace(row, short_percent=1.0)",
        'expression = "record.avg_daily_share_volume"',
        "match record:\n    case Row(shares_short=0): pass",
        "def show(last_close_price): pass",
    ],
)
def test_what_is_looked_for_is_found(source: str) -> None:
    """Each way of asking for a market, or for a column of its own, is noticed."""
    assert offences(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""HK reports weekly, in aggregated_short."""',
        'DEFAULT = parse_code("HK.00700")',
        "if market_of(code) is market: pass",
        "if record.days_to_cover is None or record.close_price: pass",
        "day = record.timestamp_str",
    ],
)
def test_what_is_neutral_is_not(source: str) -> None:
    """Prose, codes, two markets compared, and the figures of every record may stand anywhere."""
    assert offences(source) == []


def test_a_market_is_a_whole() -> None:
    """Its bounds and its ratio, shares and vendor's names are of columns that it has."""
    for market in all_markets():
        assert set(market.bounds) | set(market.vendor_names) <= set(market.columns)
        assert {market.record.SHARES, market.record.RATIO} <= set(market.columns)
        assert market.symbol.fullmatch(market.example)
        assert market.hint(market.example) is None
        assert market.has_cover == (market.record.days_to_cover is not Record.days_to_cover)


def test_a_market_that_comes_late_is_refused() -> None:
    """Patterns and schemas are made of the markets there are: one more would be half known."""
    assert all_markets()
    with pytest.raises(RuntimeError, match="HK comes too late"):
        register(HONG_KONG)


def test_a_third_market_needs_no_other_file() -> None:
    """Registered from outside, it is polled, stored, compared, filtered, sent and shown."""
    played = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "tests.third_market"),
            *("-p", "no:cacheprovider", "tests/third_market_played.py"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=scaled(100),
    )
    assert played.returncode == 0, played.stdout + played.stderr


def test_records_have_their_columns_in_order() -> None:
    """As the SDK has them, those of every table first."""
    record = HkRecord(None, "2026-04-30", 5)
    assert list(record.columns()) == list(HONG_KONG.columns)
    assert HONG_KONG.columns[:2] == columns_of(Record)
