"""The HTML pages: the watchlist, one symbol, the login. They are complete without script."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import jinja2
from aiohttp import web
from markupsafe import Markup

from poller import __version__
from poller.detect.change import Rank, Timeline
from poller.markets import Market, all_markets, is_below_threshold
from poller.model import Code, Vintage, market_of, titled
from poller.printable import printable
from poller.store.reports import SORT_WORDS
from poller.telemetry.status import Polls
from poller.web import formatting
from poller.web.api import history_of
from poller.web.asked import ReportAsked, code_of, known_at, report_asked, sorts_of, view_of
from poller.web.auth import grant, is_token
from poller.web.charts import FRAMES, chart, sparkline
from poller.web.fresh import fresh_reports, time_left
from poller.web.histories import names_of, read, readable
from poller.web.service_status import ServiceStatus, folded, further, troubled, unready
from poller.web.sources import SOURCES, Sources
from poller.web.throttle import WrongTokens
from poller.web.watchlist_view import ONLY, View, WatchlistRow, listed

_LINES: Final = 12
_FIELDS: Final = 8  # most fields parsed of the login form, which has one
_ENTRIES: Final = 300  # a few new symbols have as many, which the page shows in one line each
_HISTORY_SHOWN: Final = 520  # ten years of weeks; the downloads have all days
_MISSING_NAMED: Final = 5  # symbols that a report lacks; more are folded
_MOST_MISSING: Final = 500
_RANKED_FROM: Final = 8  # reports of a symbol: a percentile of fewer says nothing
_EARLIER: Final = 20  # replaced vintages of one day

TEMPLATES: Final = web.AppKey("templates", jinja2.Environment)
TOKEN: Final = web.AppKey("token", str)
WRONG_TOKENS: Final = web.AppKey("wrong_tokens", WrongTokens)

COLUMNS: Final = (
    ("code", "Symbol", ""),
    ("day", "Last report", ""),
    ("shares", "Shares short", "figure"),
    ("ratio", "Ratio", "figure wide"),
    ("days_to_cover", "Days to cover", "figure wide second"),
    ("change", "Change", "figure wide second"),
    ("percent", "Change, %", "figure"),
)
"""Sortable columns: key, head, CSS classes. Phones leave out the wide ones, small windows those
called second."""

SIZES: Final = (50, 100, 500)
"""Symbols of the watchlist on a page, to choose from."""

MOVED_MOST: Final = "-moved"
"""The usual order of the watchlist while a report is new."""

FIGURES: Final = (
    ("shares", "Shares short", ""),
    ("change", "Change", ""),
    ("percent", "Change, %", ""),
    ("ratio", "Ratio", ""),
    ("days_to_cover", "Days to cover", "second"),
    ("zscore", "z-score", ""),
    ("close", "Close", "second"),
    ("percentile", "Percentile", "second"),
)
"""The figures of a report: key, head, CSS classes as above."""

RANKED: Final = 100
"""Symbols of a report on its page, unless more are asked for."""

MOST_RANKED: Final = 1000
"""Symbols of a report on its page at most: to write more of them would delay polling."""

FILTERS: Final = (
    *("number", "decimal", "signed", "percent", "ratio", "direction", "plural"),
    *(
        "cover",
        "cover_note",
        "ratio_source",
        "ago",
        "due",
        "local",
        "days_old",
        "at_work",
        "left",
        "clock",
    ),
)
"""The functions of `formatting` that templates use."""


def templates() -> jinja2.Environment:
    """Return the templates; they escape all values."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("poller.web"),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in FILTERS:
        made.filters[name] = getattr(formatting, name)
    made.tests["below_threshold"] = is_below_threshold
    made.globals |= {"version": __version__}
    return made


def _shown(value: object) -> object:
    """Return a value for a template, made printable: nothing in it may reverse the page's text.

    Markup is our own. Spaces stay: some of ours are non-breaking.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    spaced = value.replace("\u00a0", " ").replace("\u202f", " ").replace("\n", " ")
    return value if spaced == printable(spaced, LONGEST) else printable(value, LONGEST)


LONGEST: Final = 4_000
"""Characters of one text of the page, as in the log."""


async def index(request: web.Request) -> web.Response:
    """Show the state of the service and the watchlist."""
    sources = request.app[SOURCES]
    service = await sources.service_status()
    rows = list(sources.overview.rows.values())
    reports = fresh_reports(service, rows)
    view = view_of(request.query, MOVED_MOST if reports else "code")
    listing = listed(rows, view, troubled(service), sources.now())
    polls, lines = dict[Code, Polls](), list[formatting.Line]()
    if not service.redis:
        polls = await sources.polls([row.code for row in listing.rows])
        lines = formatting.lines(await sources.streams.last_entries(_ENTRIES))[:_LINES]
    has_cover = any(row.days_to_cover is not None for row in listing.rows)
    return _page(
        request,
        "index.html.jinja",
        service=service,
        headline=headline(service),
        reasons=unready(service),
        troubles=folded(further(service)),
        reports=reports,
        listing=listing,
        view=view,
        heads=[
            (key, head, kind, _link(view.with_sort(key)))
            for key, head, kind in COLUMNS
            if key != "days_to_cover" or has_cover
        ],
        has_cover=has_cover,
        has_turns=any(each.next_at is not None for each in polls.values()),
        page_link=lambda page: f"?{urlencode(view.query(page))}",
        sizes=[(size, _link(replace(view, size=size, page=1))) for size in SIZES],
        spark=lambda row: Markup(sparkline(row.drawn)),  # noqa: S704  made of numbers alone
        late=_late(service, listing.rows),
        polls=polls,
        lines=lines,
        all_markets=list(all_markets()),
        only=ONLY,
    )


async def release(request: web.Request) -> web.Response:
    """Show one report of a market as a whole."""
    sources = request.app[SOURCES]
    asked = report_asked(request, RANKED, MOST_RANKED, reported=True)
    report = await sources.report(asked.market, asked.day, zscores=asked.needs_history)
    service = await sources.service_status()
    ranked = report.ranked(asked.sort)
    shown = ranked[: asked.top]
    view = next((each for each in service.markets if each.market is asked.market), None)
    newest = view if view is not None and view.day == report.day else None
    return _page(
        request,
        "release.html.jinja",
        service=service,
        report=report,
        view=newest,
        left=None if newest is None else time_left(service, newest),
        first_seen=service.first_seen.get((asked.market.name, report.day)),
        shown=shown,
        more=len(ranked) - len(shown),
        named=_MISSING_NAMED,
        most_missing=_MOST_MISSING,
        sort=asked.sort,
        words=SORT_WORDS[asked.sort],
        heads=_heads(asked),
        names=await sources.names([each.code for each in shown]),
        places=formatting.places_of(each.record.close_price for each in shown),
        zscore_link=_report_link("zscore", None),
        whole_link=_report_link(asked.sort, min(len(ranked), MOST_RANKED)),
        is_most=asked.top == MOST_RANKED,
    )


def _heads(asked: ReportAsked) -> list[tuple[str, str, str, str]]:
    """Return key, head, CSS class and link of a report's figures; phones show two of them."""
    phone = {asked.sort, "change" if asked.sort == "percent" else "percent"}
    shown = {"shares", "close", "percentile", *sorts_of(asked.market)}
    if not asked.needs_history:
        shown.discard("zscore")
    columns = [each for each in FIGURES if each[0] in shown]
    top = None if asked.top == RANKED else asked.top
    return [
        (
            key,
            head,
            "figure" if key in phone else f"figure wide {kind}".rstrip(),
            _report_link(key, top) if key in SORT_WORDS else "",
        )
        for key, head, kind in columns
    ]


def _report_link(sort: str, top: int | None) -> str:
    query = {"sort": sort} | ({} if top is None else {"top": str(top)})
    return f"?{urlencode(query)}"


async def symbol(request: web.Request) -> web.Response:
    """Show one symbol: its newest days, up to `_HISTORY_SHOWN`."""
    sources = request.app[SOURCES]
    code = code_of(request)
    moment = known_at(request)
    raw = await history_of(sources, code, moment)
    names = names_of(raw)
    history = read(market_of(code), raw, names[:_HISTORY_SHOWN])
    vintages = history.vintages
    service = await sources.service_status()
    row = sources.overview.rows.get(code)
    known = await sources.instrument(code)
    title = titled(code, known.name)
    return _page(
        request,
        "symbol.html.jinja",
        service=service,
        code=code,
        title=title,
        known=known,
        known_at=None if moment is None else moment.isoformat(),
        outstanding=known.outstanding_percent(vintages[0].record) if vintages else None,
        market=market_of(code),
        row=row,
        rank=_rank(vintages),
        probed_at=_probed_at(service, market_of(code)),
        charts=_charts(f"Short interest of {title}", vintages),
        places=formatting.places_of(vintage.record.close_price for vintage in vintages),
        late=_late(service, [row] if row is not None else []),
        vintages=vintages,
        unreadable=history.left_out,
        more=max(0, len(names) - _HISTORY_SHOWN),
        earlier=await _earlier(sources, vintages, code),
        polls=(await sources.polls([code])).get(code),
    )


def _probed_at(service: ServiceStatus, market: Market) -> datetime | None:
    """Return when one of a market's symbols is probed next, if that is known now."""
    views = () if service.redis else service.markets
    return next((view.probed_at for view in views if view.market is market), None)


def _rank(vintages: Sequence[Vintage]) -> Rank | None:
    """Return the rank of the newest figure among these; None where it is no figure."""
    if len(vintages) < _RANKED_FROM or is_below_threshold(vintages[0].record):
        return None
    timeline = Timeline({vintage.day: vintage.record for vintage in vintages})
    rank = timeline.ranks([vintages[0].day])[vintages[0].day]
    return rank if rank.not_above else None


def _charts(title: str, vintages: Sequence[Vintage]) -> list[Markup]:
    days = list(reversed(vintages))
    drawn = [chart(title, days, frame) for frame in FRAMES]
    return [Markup(text) for text in drawn if text]  # noqa: S704  it escapes the title


def _late(service: ServiceStatus, rows: Sequence[WatchlistRow]) -> dict[Code, date | None]:
    """Return the codes that still show an older day → the newest day of their market."""
    views = {view.market: view for view in service.markets}
    found = ((row.code, views.get(row.market), row) for row in rows)
    return {code: view.day for code, view, row in found if view is not None and view.is_late(row)}


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


def headline(service: ServiceStatus) -> str:
    """Return the state of the service in a sentence."""
    if reasons := unready(service):
        return f"Not working: {reasons[0]}"
    if troubles := service.troubles:
        return f"Working, with {formatting.plural(len(troubles), ('trouble', 'troubles'))}"
    return f"All is well: {formatting.plural(service.symbols, ('symbol', 'symbols'))} watched"


def refusal(request: web.Request, error: web.HTTPException) -> web.Response:
    """Return the page of an error, with a link back."""
    reason = (error.text or error.reason).strip()
    page = _page(request, "refusal.html.jinja", title=error.reason, reason=reason)
    page.set_status(error.status)
    return page


async def login(request: web.Request) -> web.Response:
    """Show the login form."""
    return _page(request, "login.html.jinja", problem="")


async def enter(request: web.Request) -> web.Response:
    """Check the token from the login form, and set the session cookie."""
    token = request.app.get(TOKEN)
    given = await _given(request)
    if token is None:
        raise web.HTTPSeeOther("/")
    try:
        right = is_token(given, token, request.remote, request.app[WRONG_TOKENS])
    except web.HTTPTooManyRequests as early:
        page = _page(request, "login.html.jinja", problem=(early.text or "").strip())
        page.set_status(early.status)
        page.headers["Retry-After"] = early.headers["Retry-After"]
        return page
    if not right:
        page = _page(request, "login.html.jinja", problem="That is not the token.")
        page.set_status(401)
        return page
    response = web.Response(status=303, headers={"Location": "/"})
    grant(response, token, secure=request.secure)
    return response


async def _given(request: web.Request) -> str:
    """Return the token in the form, or "" without one; raises HTTPBadRequest for other bodies.

    The body is never repeated, neither in the answer nor in the log: it may be a token.
    """
    form = "application/x-www-form-urlencoded"
    refusal = web.HTTPBadRequest(text=f"the form must be sent as {form}, in UTF-8\n")
    if request.content_type != form or (request.charset or "utf-8").lower() != "utf-8":
        raise refusal
    try:
        body = (await request.read()).decode("ascii")
        pairs = parse_qsl(body, keep_blank_values=True, errors="strict", max_num_fields=_FIELDS)
    except ValueError:
        raise refusal from None
    return dict(pairs).get("token", "").strip()


def _page(request: web.Request, template: str, **values: Any) -> web.Response:  # noqa: ANN401
    now = request.app[SOURCES].now()
    text = request.app[TEMPLATES].get_template(template).render(now=now, **values)
    # a report may contain lone surrogates
    body = text.encode(errors="replace")
    return web.Response(body=body, content_type="text/html", charset="utf-8")


def _link(view: View) -> str:
    return f"?{urlencode(view.query())}"
