"""`poller explain CODE`: why has this symbol published nothing?

It reads what the running service has stored, and asks neither OpenD nor the service.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from math import ceil
from typing import Final

from poller import show
from poller.cli.options import ConfigFile, codes_of, load_config
from poller.cli.runner import finish
from poller.cli.stores import beside, instruments_of, store_of
from poller.cli.webhooks import is_due, state_in_words
from poller.clock import wall_clock
from poller.delivery.redisoutbox import RedisOutbox
from poller.detect.impossible import explained
from poller.markets import all_markets
from poller.model import Code, Instrument, market_of
from poller.schedule.calendar import expected_after
from poller.settings.config import Config
from poller.simulator.story import RELEASE_EVERY
from poller.store.ports import Spent
from poller.store.redis_status import RedisStatusStore
from poller.store.store import Snapshot
from poller.telemetry.observe import right_of
from poller.telemetry.status import Polls, ProcessReport, ReleaseState, living

Lines = Iterator[tuple[str, str]]

_HOURS: Final = 48


def explain(code: str, /, *, config: ConfigFile = None) -> None:
    """Explain why a symbol has published nothing.

    Args:
        code: HK.00700, US.AAPL
        config: TOML file
    """
    (symbol,) = codes_of([code])
    finish(_print_explanation(load_config(config, reading=True), symbol))


async def _print_explanation(config: Config, code: Code) -> None:
    rows = await explanation(config, code)
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        show.say(f"{name:<{width}}  {text}", indent=width + 2)


async def explanation(config: Config, code: Code) -> list[tuple[str, str]]:
    """Return what is known of a symbol, when it is polled, and which problems there are.

    Pairs of a subject and a sentence. Raises StoreDown, StoreMisfit and Failure.
    """
    async with (
        store_of(config, existing=True) as store,
        beside(store, RedisStatusStore) as status_store,
        beside(store, RedisOutbox) as outbox,
    ):
        now = wall_clock()
        reports, lease = living(await status_store.reports(), now), await status_store.lease()
        watched = code in (await status_store.symbols() or ())
        simulated = await status_store.simulated()
        polls = (await status_store.polls([code])).get(code, Polls())
        snapshot = await store.records.snapshot(code)
        known = (await instruments_of(store, [code], [])).get(code, Instrument())
        rows = [("company", known.name)] if known.name is not None else []
        rows += _history(code, snapshot, now, simulated=simulated)
        unwatched = _unwatched(config, code, simulated=simulated)
        rows += _service(reports, lease, code, watched=watched, unwatched=unwatched)
        active = reports.get(lease.partition(":")[2])
        barred = _barred(active, code)
        rows += _rights(active, code)
        when = when_polled(polls, active, code, snapshot.known.newest)
        rows += _polls(polls, when, watched=watched, barred=barred)
        rows += [row async for row in _budgets(active, store.ledger)]
        rows += [row async for row in _webhooks(config, outbox, code, now)]
    return rows


async def _webhooks(
    config: Config, outbox: RedisOutbox, code: Code, now: datetime
) -> AsyncIterator[tuple[str, str]]:
    """Yield the state of each endpoint, and whether it wants this symbol."""
    for table in config.webhooks:
        status = await outbox.status(table.name)
        is_selected = table.endpoint().selection.selects(code)
        state = state_in_words(status)
        line = f"{state}: {status.disabled}" if status.disabled else state
        line += "" if is_selected else ", does not want this symbol"
        line += f"; {status.waiting} waiting, {status.dead} dead letters"
        if is_due(status, now):
            line += ", the next attempt is due"
        elif status.next_attempt is not None:
            line += f", next attempt {status.next_attempt:%Y-%m-%d %H:%M:%S} UTC"
        error = f"; last error: {status.last_error}" if status.last_error else ""
        yield f"webhook {table.name}", line + error


def _history(code: Code, snapshot: Snapshot, now: datetime, *, simulated: bool) -> Lines:
    known = snapshot.known
    if known.newest is None:
        yield "watermark", "none: no row of it was ever published"
        return
    vintage = known.vintages.get(known.newest)
    seen = f", read {vintage.observed_at:%Y-%m-%d %H:%M} UTC" if vintage is not None else ""
    yield "watermark", f"{known.newest}{seen}; {len(known.vintages)} days in history"
    release = expected_after(market_of(code), known.newest)
    opens = release.opens.astimezone(UTC)
    late = now - opens
    ago = f", {hours_or_days(late)} ago" if late > timedelta(0) else ""
    expected = f"expected from {opens:%Y-%m-%d %H:%M} UTC on{ago}"
    if simulated and ago:
        every = RELEASE_EVERY.total_seconds()
        expected = (
            f"within {every:g} s: the simulation plays one each {every:g} s until it has caught up"
        )
    yield "next report", f"{release.day}, {expected}"
    for day in sorted(known.held):
        held = known.held[day]
        why = explained(market_of(code), held)
        yield "held", f"{day} as {why}, {held.decision}; see: poller quarantine list"


_AS_ONE_OF_MANY: Final = "one symbol of its market is tried till then, see above"
_OTHERS: Final = tuple(f"{market}." for market in all_markets())


def hours_or_days(length: timedelta) -> str:
    """Format a length: in hours below two days, then in days."""
    hours = length // timedelta(hours=1)
    return f"{hours} h" if hours < _HOURS else f"{length.days} days"


def _service(
    reports: Mapping[str, ProcessReport], lease: str, code: Code, *, watched: bool, unwatched: str
) -> Lines:
    """Yield who polls, and its state. `unwatched`: why the symbol is not watched, if it is not."""
    token, _, name = lease.partition(":")  # a report alone may be a killed process's
    report = reports.get(name)
    if report is None:
        yield "service", f"{name} took over just now" if lease else "nobody polls: start poller run"
    else:
        yield "service", f"{name} polls, lease {token}, {report.symbols} symbols"
        for gateway in report.gateways:
            state = "ready" if gateway.ready else f"not ready: {gateway.reason}"
            yield f"OpenD {gateway.name}", f"{state}, since {gateway.since:%Y-%m-%d %H:%M} UTC"
        rights = {right_of(each.account, each.market) for each in report.resting}
        for subject, reason in report.troubles.items():
            if subject in rights:
                continue  # told below, of its own market
            if code in subject.split() or not subject.startswith((*_OTHERS, "poll of ")):
                yield "trouble", f"{subject}: {reason}"
        if not watched:
            yield "watched", f"no: {unwatched}"


def _unwatched(config: Config, code: Code, *, simulated: bool) -> str:
    """Return why a symbol is not watched, or how to watch it."""
    if simulated:
        return "it is not in the simulation; see: poller watch list"
    if code in config.watchlist.codes:
        return (
            "this configuration names it, the active poller has another watchlist: give both one "
            "list, or each a redis.namespace of its own"
        )
    return f"poller watch add {code}"


def _rights(active: ProcessReport | None, code: Code) -> Lines:
    """Say which accounts may not see the market of a symbol, and since when."""
    for each in active.resting if active is not None else ():
        if each.market == market_of(code).name:
            since = f"learned {each.since:%Y-%m-%d %H:%M} UTC: {each.reason}"
            again = f"tried again {each.next_at:%Y-%m-%d %H:%M} UTC"
            cure = f"give it the quote card for {each.market}, or add an [[opend]] that has it"
            yield "right", f"{right_of(each.account, each.market)}, {since}; {again}; {cure}"


def _barred(active: ProcessReport | None, code: Code) -> bool:
    """Tell whether no account may see the market of a symbol."""
    if active is None:
        return False
    resting = {each.account for each in active.resting if each.market == market_of(code).name}
    return bool(resting) and resting >= {gateway.account for gateway in active.gateways}


def when_polled(polls: Polls, active: ProcessReport | None, code: Code, newest: date | None) -> str:
    """Return when a watched symbol is polled next, as far as is planned. `newest`: its watermark.

    A symbol that waits for a turn has no moment of its own: its market has.
    """
    if polls.next_at is not None:
        return f"{polls.next_at:%Y-%m-%d %H:%M:%S} UTC"
    if active is None:
        return "once a poller has reported"
    market = market_of(code)
    state = active.markets.get(market.name, ReleaseState())
    if newest is not None and newest == state.day:
        if state.next_at is None:
            return f"{market} is probed now"
        return f"{market} is probed next at {state.next_at:%Y-%m-%d %H:%M:%S} UTC"
    if state.phase == "sweeping":
        done = f"{state.covered:,} of {state.wanted:,} symbols of its report are read"
        return f"by {_sweep_ends(active, state):%H:%M:%S} UTC, as far as the budget allows; {done}"
    return "within a day" if polls.polls else "within a minute"


def _sweep_ends(active: ProcessReport, state: ReleaseState) -> datetime:
    """Return when every symbol has been asked once, if the whole budget goes into the sweep."""
    requests, period = active.budget or _NO_BUDGET
    accounts = len({gateway.account for gateway in active.gateways}) or 1
    left = max(state.wanted - state.covered, 1)
    return active.at + timedelta(seconds=ceil(left / (max(requests, 1) * accounts)) * period)


_NO_BUDGET: Final = (30, 30.0)
"""OpenD's limit, for reports of versions that do not tell theirs."""


def _polls(polls: Polls, when: str, *, watched: bool, barred: bool) -> Lines:
    if not polls.polls:
        yield "last polls", "none on record"
    for poll in polls.polls:
        yield "polled", f"{poll.at:%Y-%m-%d %H:%M:%S} UTC: {poll.answer}"
    if watched and barred:
        yield "next poll", f"when an account may see it; {_AS_ONE_OF_MANY}"
    elif watched:
        yield "next poll", f"{when}: {polls.reason}" if polls.reason else when


async def _budgets(active: ProcessReport | None, ledger: Spent) -> AsyncIterator[tuple[str, str]]:
    """Yield what the active poller has spent of its configured budget, per account."""
    if active is None or active.budget is None:
        return
    requests, period = active.budget
    for account in dict.fromkeys(gateway.account for gateway in active.gateways):
        spent = await ledger.spent(account, period=period)
        yield f"budget of {account}", f"{spent} spent of {requests} of the last {period:g} s"
