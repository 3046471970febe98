"""What another client may have left in Redis, read by the code that reads it in the service."""

import contextlib
import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any, Final

from poller.codec import read_day, read_moment
from poller.detect.compare import compare
from poller.detect.held import QuarantinedFigure
from poller.errors import StoreMisfit, Unreadable
from poller.events import StreamEvent, decode, encode
from poller.markets import Market, all_markets
from poller.markets.hk import HONG_KONG
from poller.model import MOST_NAME, Code, Instrument, Vintage, market_of, to_json
from poller.schedule.release import Intervals, MarketState
from poller.schedule.schedule import Answered, Probe, Schedule
from poller.store.plain import history_rows
from poller.store.playtime import read_play
from poller.store.redis_status import read_symbols
from poller.store.rediswatchlist import read_live, version_of
from poller.store.snapshots import held_writes_of, read_snapshot, writes_of
from poller.store.store import Keys
from poller.telemetry.status import Polls, ProcessReport, living
from poller.web import formatting
from poller.web.histories import pieces
from poller.web.pages import headline
from poller.web.safe_json import json_text
from poller.web.samples import samples_of
from poller.web.service_status import ServiceStatus, as_json, further
from poller.web.watchlist_view import row_of
from poller.web.zones import EACH_MARKET
from tests.fuzz.engine import NOW, Target, bounded, plain, refused, text_of
from tests.golden import VERSIONS, written

KEYS: Final = Keys("short-interest")
_CODES: Final = (Code("HK.00700"), Code("US.JXDH"))
_INTERVALS: Final = Intervals(
    timedelta(seconds=20), timedelta(seconds=2400), timedelta(seconds=300)
)
_MOST_MISFIT: Final = 1_000_000
"""Characters: a refusal may name a field, as its remedy does, and the log cuts it."""


def values_under(*keys: str) -> list[bytes]:
    """Return what released versions wrote to hashes and strings whose keys begin so."""
    found: list[bytes] = []
    for version in VERSIONS:
        for key, stored in written(version).items():
            if not any(f"}}:{part}" in key for part in keys):
                continue
            if stored["type"] == "hash":
                found += [text.encode() for text in stored["value"].values()]
            elif stored["type"] == "string":
                found.append(stored["value"].encode())
    return found


def hash_text(fields: dict[str, str]) -> bytes:
    """Return a hash as an input: its names and values, joined by NUL."""
    return "\x00".join(itertools.chain(*fields.items())).encode()


def pairs_of(data: bytes) -> dict[str, str]:
    """Return the hash that an input stands for."""
    parts = text_of(data).split("\x00")
    return dict(zip(parts[::2], parts[1::2], strict=False))


def hashes_under(part: str) -> list[bytes]:
    """Return the hashes that released versions wrote under keys that begin so, as inputs."""
    return [
        hash_text(stored["value"])
        for version in VERSIONS
        for key, stored in written(version).items()
        if f"}}:{part}" in key and stored["type"] == "hash"
    ]


def _both(read: Callable[[Market, str], object]) -> Callable[[str], object]:
    return lambda text: [read(market, text) for market in all_markets()]


def _instrument(text: str) -> None:
    """Read what is kept of a symbol's name and shares, and show it."""
    known = Instrument.from_json(text)
    if known.name is not None:
        bounded(known.name, MOST_NAME)
    formatting.number(known.issued_shares)
    known.to_json()


def _symbols() -> list[bytes]:
    """Return the keys of each symbol: its code, its watermark, and its three hashes."""
    found = []
    for version in VERSIONS:
        keys = written(version)
        for code, watermark in keys[KEYS.watermark]["value"].items():
            parts = [code, watermark]
            for kind, key in zip(
                "hvq", (KEYS.history(code), KEYS.vintages(code), KEYS.held(code)), strict=True
            ):
                for name, text in keys.get(key, {"value": {}})["value"].items():
                    parts += [kind, name, text]
            found.append("\x00".join(parts).encode())
    return found


def _symbol(data: bytes) -> None:
    """Read all that is known of a symbol, show it, and poll it once more."""
    first, watermark, *parts = [*text_of(data).split("\x00"), "", ""][:2000]
    code = _CODES[first.startswith("US")]
    hashes: dict[str, dict[str, str]] = {"h": {}, "v": {}, "q": {}}
    for kind, name, text in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        hashes.get(kind[:1], hashes["h"])[name] = text
    history, vintages, held = hashes.values()
    _shown(code, history)
    try:
        snapshot = read_snapshot(code, watermark, history, vintages, held, keys=KEYS)
        found = compare(code, _answer(market_of(code)), snapshot.known, observed_at=NOW, history=9)
    except StoreMisfit as problem:
        bounded(str(problem), _MOST_MISFIT)
        return
    for event in found.events:
        assert isinstance(decode("1-0", encode(event)), StreamEvent)
    held_writes_of(found, snapshot)
    writes_of(found, snapshot)


def _shown(code: Code, history: dict[str, str]) -> None:
    json_text(row_of(code, history).columns())
    for piece in pieces(market_of(code), history, 500):
        json_text(history_rows(piece.vintages))


@cache
def _answer(market: Market) -> tuple[Any, ...]:
    """Return rows as OpenD gives them: the last days a released version wrote, and a new one."""
    code = next(code for code in _CODES if market_of(code) is market)
    texts = written(VERSIONS[-1])[KEYS.history(code)]["value"]
    known = [Vintage.from_json(market, texts[day]).record for day in sorted(texts)[-4:]]
    return (*known, replace(known[-1], timestamp=None, timestamp_str="2026-05-06"))


def _plan(text: str) -> None:
    """Take up a plan and let it plan for a while."""
    for market, code in zip(map(market_of, _CODES), _CODES, strict=True):
        state = MarketState.from_json(text)
        schedule = Schedule(_INTERVALS)
        schedule.watch(_CODES)
        schedule.restore({code: NOW.date()}, {market: state})
        for minutes in (0, 1, 60):
            now = NOW + timedelta(minutes=minutes)
            match schedule.next(now):
                case Probe(code=probed):
                    schedule.record(probed, Answered(NOW.date()), now)
        schedule.outlook(code)
        for each in schedule.states().values():
            MarketState.from_json(each.to_json())


def _report(data: bytes) -> None:
    """Show what a process reported on the page, in the API and in the metrics."""
    report = ProcessReport.from_json(text_of(data))
    if report is None:
        return
    service = ServiceStatus(at=NOW, reports={"host-1": report}, lease="1:host-1")
    living(service.reports, NOW)
    json_text(as_json(service))
    further(service)
    bounded(headline(service, 0), 300_000)
    formatting.at_work(report)
    list(samples_of(service))
    report.to_json()


def _polls(data: bytes) -> None:
    polls = Polls.from_json(text_of(data))
    if polls is None:
        return
    formatting.due(polls.next_at, NOW)
    for poll in polls.polls:
        formatting.ago(poll.at, NOW)
        formatting.moment(poll.at, EACH_MARKET, HONG_KONG)
    to_json([poll.answer for poll in polls.polls])
    polls.to_json()


def _watched(data: bytes) -> None:
    fields = pairs_of(data)
    live = read_live(KEYS.watch, fields)
    assert set(live.marks) <= set(fields)
    bounded(live.foreign, 1000)
    version_of(text_of(data))


def _play(data: bytes) -> None:
    try:
        play = read_play(KEYS.play, pairs_of(data))
    except StoreMisfit as problem:
        bounded(str(problem), 1000)
        return
    taken = play.resumed(NOW)
    with contextlib.suppress(Unreadable):
        read_moment((NOW - taken.paused).isoformat())


def _plays() -> Iterable[bytes]:
    yield hash_text({"began": NOW.isoformat(), "seen": NOW.isoformat(), "paused": "12.5"})


TARGETS: Final = (
    Target(
        "symbol",
        _symbols,
        plain(_symbol),
        ("watermark", "history:<code>", "vintages:<code>", "held:<code>"),
    ),
    Target(
        "vintage",
        lambda: values_under("vintages", "history"),
        refused(_both(Vintage.from_json)),
        ("vintages:<code>", "history:<code>"),
    ),
    Target(
        "held figure",
        lambda: values_under("held"),
        refused(_both(QuarantinedFigure.from_json)),
        ("held:<code>",),
    ),
    Target(
        "instrument",
        lambda: [Instrument("騰訊", 9, 8, NOW, NOW).to_json().encode()],
        refused(_instrument),
        ("instruments",),
    ),
    Target("plan", lambda: values_under("schedule"), refused(_plan), ("schedule",)),
    Target("report", lambda: values_under("status"), plain(_report), ("status",)),
    Target("polls", lambda: values_under("polls"), plain(_polls), ("polls",)),
    Target(
        "live watchlist", lambda: hashes_under("watch"), plain(_watched), ("watch", "watch:version")
    ),
    Target(
        "watched codes",
        lambda: values_under("symbols"),
        plain(lambda data: read_symbols(text_of(data))),
        ("symbols",),
    ),
    Target("play", lambda: list(_plays()), plain(_play), ("simulated:play",)),
    Target("day", lambda: [b"2026-04-30"], refused(read_day)),
    Target("instant", lambda: [b"2026-05-08T09:15:02.123Z"], refused(read_moment)),
)
