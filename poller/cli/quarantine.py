"""The `quarantine` commands: show held figures, and let the operator decide on them.

A decision is only stored with the figure; the symbol's next poll acts on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Final

from cyclopts import App

from poller import show
from poller.cli.options import ConfigFile, codes_of, load_config
from poller.cli.runner import finish
from poller.cli.stores import Failure, store_of
from poller.clock import wall_clock
from poller.detect.compare import Comparison, Known
from poller.detect.held import Decision, QuarantinedFigure, Reason
from poller.errors import StoreMisfit, Superseded
from poller.model import Code, market_of
from poller.settings.config import Config
from poller.store.store import ONE_OFF

_TRIES: Final = 5
_DONE: Final[Mapping[Decision, str]] = {
    Decision.RELEASED: "released; the next poll publishes it",
    Decision.DISCARDED: "discarded; only another figure of that day is checked again",
}
_WHOLE_DONE: Final[Mapping[Decision, str]] = {
    Decision.RELEASED: "and all days with it released; the next poll publishes them as one",
    Decision.DISCARDED: "and all days with it discarded; nothing is published while they are shown",
}


quarantine = App(
    name="quarantine", help="Show figures held as impossible or implausible, and decide on them."
)


@quarantine.command(name="list")
def quarantine_list(*, json: bool = False, config: ConfigFile = None) -> None:
    """List the held figures, why they are held, and what was decided.

    Args:
        json: one JSON list
        config: TOML file
    """
    finish(show_held(load_config(config, reading=True), as_json=json))


@quarantine.command(name="release")
def quarantine_release(
    code: str, days: tuple[date, ...] = (), /, *, config: ConfigFile = None
) -> None:
    """Let the next poll publish the held figures of these days, or all that wait.

    Args:
        code: HK.00700, US.AAPL
        days: 2026-04-30 …
        config: TOML file
    """
    _decide(code, days, Decision.RELEASED, config)


@quarantine.command(name="discard")
def quarantine_discard(
    code: str, days: tuple[date, ...] = (), /, *, config: ConfigFile = None
) -> None:
    """Discard the held figures of these days, or all that wait.

    Another figure of such a day is checked again.

    Args:
        code: HK.00700, US.AAPL
        days: 2026-04-30 …
        config: TOML file
    """
    _decide(code, days, Decision.DISCARDED, config)


def _decide(code: str, days: tuple[date, ...], decision: Decision, config: Path | None) -> None:
    (symbol,) = codes_of([code])
    wanted = tuple(dict.fromkeys(days))
    finish(decide(load_config(config, reading=True), symbol, wanted, decision))


async def show_held(config: Config, *, as_json: bool) -> None:
    """Print every held figure, whatever was decided on it, by symbol and day.

    Failure, raised at the end, names the symbols whose keys cannot be read.
    """
    async with store_of(config, existing=True) as store:
        rows, failures = [], []
        for code in await store.records.held_codes():
            try:
                held = (await store.records.snapshot(code)).known.held
            except StoreMisfit as problem:  # of this symbol only: print the others
                failures.append(f"{code}: {problem}")
                continue
            rows += [(code, held[day]) for day in sorted(held)]
    show.print_held(rows, as_json=as_json)
    if failures:
        raise Failure("\n".join(failures))


async def decide(config: Config, code: Code, days: Sequence[date], decision: Decision) -> None:
    """Store a decision on the held figures of these days: on all of them, or on none.

    Without days, on all figures of the symbol that wait for one and are not of a future day.
    """
    async with store_of(config, existing=True) as store:
        for _ in range(_TRIES):
            snapshot = await store.records.snapshot(code)
            chosen = [_held(code, snapshot.known, day) for day in days] or _waiting(
                code, snapshot.known
            )
            decided = tuple(replace(held, decision=decision) for held in chosen)
            _refuse_early(code, decided, decision)
            change = Comparison(snapshot.known.watermark, held=decided)
            try:
                await store.records.commit(code, change, snapshot, ONE_OFF)
            except Superseded:
                continue  # the service wrote in between
            break
        else:
            raise Failure(f"{code} changes at every try; try again")
    for held in decided:
        words = _WHOLE_DONE if held.reason == Reason.WHOLE_HISTORY else _DONE
        show.say(f"{code} {held.day} {words[decision]}")


def _waiting(code: Code, known: Known) -> list[QuarantinedFigure]:
    """Return the figures that wait for a decision, oldest first, without future days."""
    waiting = [
        known.held[day]
        for day in sorted(known.held)
        if known.held[day].decision is Decision.HELD and not _is_early(code, known.held[day])
    ]
    if not waiting:
        raise Failure(f"{code}: nothing waits for a decision; see: poller quarantine list")
    return waiting


def _held(code: Code, known: Known, day: date) -> QuarantinedFigure:
    if day not in known.held:
        raise Failure(f"{code}: {day} is not held; see: poller quarantine list")
    return known.held[day]


def _refuse_early(code: Code, decided: Sequence[QuarantinedFigure], decision: Decision) -> None:
    for held in decided:
        if decision is Decision.RELEASED and _is_early(code, held):
            raise Failure(
                f"{code}: {held.day} lies in the future; it is checked again when that day has come"
            )


def _is_early(code: Code, held: QuarantinedFigure) -> bool:
    today = wall_clock().astimezone(market_of(code).zone).date()
    return held.reason == Reason.FUTURE_DAY and held.day > today
