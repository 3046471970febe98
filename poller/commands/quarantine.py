"""What the `quarantine` commands do: show what is held, and let the operator rule on it.

A ruling only changes what is written beside the figure; the next poll of the symbol acts on it.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Final

from poller import show
from poller.clock import wall_clock
from poller.commands.everyday import Failure, store_of
from poller.detect.compare import Comparison, Known
from poller.detect.held import Held, Reason, Ruling
from poller.errors import StoreMisfit, Superseded
from poller.model import Code, market_of
from poller.settings.config import Config
from poller.storage.store import ONE_OFF

_TRIES: Final = 5
_DONE: Final = {
    Ruling.RELEASED: "released; the next poll publishes it",
    Ruling.DISCARDED: "discarded; only another figure of that day is looked at again",
}


async def show_held(config: Config, *, as_json: bool) -> None:
    """Print every held figure, whatever was ruled on it, by symbol and day.

    Raises StoreMisfit, after that, when a symbol's keys cannot be read.
    """
    async with store_of(config, existing=True) as store:
        rows, unfit = [], []
        for code in await store.held_codes():
            try:
                held = (await store.snapshot(code)).known.held
            except StoreMisfit as problem:  # the others are shown all the same
                unfit.append(problem)
                continue
            rows += [(code, held[day]) for day in sorted(held)]
    show.print_held(rows, as_json=as_json)
    if unfit:
        raise unfit[0]


async def rule(config: Config, code: Code, days: Sequence[date], ruling: Ruling) -> None:
    """Set the ruling on these held days, on all of them or on none."""
    async with store_of(config, existing=True) as store:
        for _ in range(_TRIES):
            snapshot = await store.snapshot(code)
            ruled = tuple(replace(_held(code, snapshot.known, day), ruling=ruling) for day in days)
            _refuse_early(code, ruled, ruling)
            change = Comparison(snapshot.known.watermark, held=ruled)
            try:
                await store.commit(code, change, snapshot, ONE_OFF)
            except Superseded:
                continue  # the service wrote in between
            break
        else:
            raise Failure(f"{code} changes at every try; try again")
    for day in days:
        show.say(f"{code} {day} {_DONE[ruling]}")


def _held(code: Code, known: Known, day: date) -> Held:
    if day not in known.held:
        raise Failure(f"{code}: {day} is not held; see: poller quarantine list")
    return known.held[day]


def _refuse_early(code: Code, ruled: Sequence[Held], ruling: Ruling) -> None:
    today = wall_clock().astimezone(market_of(code).zone).date()
    for held in ruled:
        if ruling is Ruling.RELEASED and held.reason is Reason.FUTURE_DAY and held.day > today:
            raise Failure(
                f"{code}: {held.day} lies in the future; it is judged anew when it has come"
            )
