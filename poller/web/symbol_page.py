"""The page of one symbol: its newest report, its chart, its history. Complete without script."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, tzinfo
from typing import Final
from urllib.parse import urlencode

from aiohttp import web
from markupsafe import Markup, escape

from poller.detect.change import Rank, Timeline
from poller.markets import Market, is_below_threshold
from poller.model import Code, Vintage, market_of, titled
from poller.schedule.facts import NO_FACTS, facts_of
from poller.schedule.market import QUIET_FOR
from poller.telemetry.status import Polls
from poller.web import assets, formatting
from poller.web.api import history_of
from poller.web.asked import code_of, entered, known_at
from poller.web.charts import FRAMES, chart
from poller.web.histories import names_of, read, readable
from poller.web.plots import UNMOVED, Move, beside, moves, plot_text, plotted
from poller.web.rendering import rendered
from poller.web.service_status import ServiceStatus, late
from poller.web.sources import SOURCES, Sources
from poller.web.watchlist_view import RANKED_FROM, WatchlistRow, row_of
from poller.web.zone_choice import zone_of, zoned

_HISTORY_SHOWN: Final = 520  # ten years of weeks; the downloads have all days
_EARLIER: Final = 20  # replaced vintages of one day

RANGES: Final = (("3M", 91), ("1Y", 365), ("3Y", 1096), ("All", 0))
"""What the buttons of the chart show: word, days up to the newest; 0: all."""


@zoned
async def symbol(request: web.Request) -> web.Response:
    """Show one symbol: its newest days, up to `_HISTORY_SHOWN`; all of now, or as known then."""
    sources = request.app[SOURCES]
    code = code_of(request)
    market = market_of(code)
    zone = zone_of(request)
    if (chosen := entered(request, zone.of(market))) is not None:
        there = request.rel_url.with_query({"as_known_at": chosen} if chosen else {})
        return web.Response(status=303, headers={"Location": str(there)})
    moment = known_at(request)
    raw = await history_of(sources, code, moment)
    names = names_of(raw)
    history = read(market, raw, names[:_HISTORY_SHOWN])
    vintages = history.vintages
    older = read(market, raw, names[_HISTORY_SHOWN : _HISTORY_SHOWN + 1]).vintages
    moved = moves([*vintages, *older])
    facts = facts_of(vintage.record for vintage in vintages)
    service = await sources.service_status()
    row = sources.overview.rows.get(code) if moment is None else row_of(code, raw)
    known = await sources.instrument(code)
    polls = (await sources.polls([code])).get(code)
    title = titled(code, known.name)
    return rendered(
        request,
        "symbol.html.jinja",
        service=service,
        code=code,
        title=title,
        known=known,
        known_at=moment,
        at=sources.now() if moment is None else min(moment, sources.now()),
        asked="" if moment is None else f"?{urlencode({'as_known_at': moment.isoformat()})}",
        field=_field(moment, zone.of(market)),
        zone_word=zone.word(sources.now(), market),
        outstanding=known.outstanding_percent(vintages[0].record) if vintages else None,
        market=market,
        row=row,
        rank=_rank(vintages),
        probed_at=_probed_at(service, market),
        quiet_by=_quiet_by(service, row, polls),
        charts=_charts(f"Short interest of {title}", vintages),
        plotter=request.app[assets.PLOTTER],
        plot=_plot(market, vintages, moved),
        ranges=RANGES,
        moves=moved,
        facts=next(iter(facts), NO_FACTS),
        beside=beside(vintages, facts, known),
        unmoved=UNMOVED,
        places=formatting.places_of(vintage.record.close_price for vintage in vintages),
        late=late(service, [row] if row is not None and moment is None else []),
        vintages=vintages,
        has_revisions=any(vintage.revision for vintage in vintages),
        unreadable=history.left_out,
        more=max(0, len(names) - _HISTORY_SHOWN),
        earlier=await _earlier(sources, vintages, code),
        polls=polls,
    )


def _field(moment: datetime | None, zone: tzinfo) -> str:
    """Return a moment as a field for a time has it; "" for none."""
    try:
        return "" if moment is None else f"{moment.astimezone(zone):%Y-%m-%dT%H:%M:%S}"
    except OverflowError:
        return ""


def _probed_at(service: ServiceStatus, market: Market) -> datetime | None:
    """Return when one of a market's symbols is probed next, if that is known now."""
    views = () if service.redis else service.markets
    return next((view.probed_at for view in views if view.market is market), None)


def _quiet_by(
    service: ServiceStatus, row: WatchlistRow | None, polls: Polls | None
) -> datetime | None:
    """Return by when a symbol is polled that takes no part in releases; None for others."""
    if row is None or polls is None:
        return None
    view = next((each for each in service.markets if each.market is row.market), None)
    is_quiet = view is None or (view.phase != "sweeping" and row.day != view.day)
    return polls.again_by(QUIET_FOR) if is_quiet or row.day is None else None


def _rank(vintages: Sequence[Vintage]) -> Rank | None:
    """Return the rank of the newest figure among these; None where it is no figure."""
    if len(vintages) < RANKED_FROM or is_below_threshold(vintages[0].record):
        return None
    timeline = Timeline({vintage.day: vintage.record for vintage in vintages})
    rank = timeline.ranks([vintages[0].day])[vintages[0].day]
    return rank if rank.not_above else None


def _charts(title: str, vintages: Sequence[Vintage]) -> list[Markup]:
    days = list(reversed(vintages))
    drawn = [chart(title, days, frame) for frame in FRAMES]
    return [Markup(text) for text in drawn if text]  # noqa: S704  it escapes the title


def _plot(market: Market, vintages: Sequence[Vintage], moved: Mapping[date, Move]) -> Markup:
    return escape(plot_text(plotted(market, vintages, moved)))


async def _earlier(
    sources: Sources, vintages: Sequence[Vintage], code: Code
) -> dict[date, list[Vintage]]:
    """Return the earlier vintages of revised days, newest first."""
    names = [
        f"{vintage.day}:{revision}"
        for vintage in vintages
        for revision in reversed(range(max(0, vintage.revision - _EARLIER), vintage.revision))
    ]
    found: dict[date, list[Vintage]] = {}
    shown = names[:_HISTORY_SHOWN]
    for name, text in zip(shown, await sources.status_store.vintages(code, shown), strict=True):
        day = name.partition(":")[0]
        if text is not None and (vintage := readable(market_of(code), day, text)) is not None:
            found.setdefault(vintage.day, []).append(vintage)
    return found
