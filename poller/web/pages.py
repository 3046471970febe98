"""The HTML pages but the symbol's: watchlist, report, login. They are complete without script."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qsl, urlencode

from aiohttp import web
from markupsafe import Markup

from poller.errors import StoreDown
from poller.markets import all_markets
from poller.model import Code
from poller.schedule.report import ranked
from poller.simulator.story import PACE
from poller.store.reports import SORT_WORDS
from poller.telemetry.status import Polls
from poller.web import formatting
from poller.web.asked import ReportAsked, check_names, report_asked, sorts_of, view_of
from poller.web.auth import grant, is_token
from poller.web.charts import sparkline
from poller.web.fresh import fresh_reports, time_left
from poller.web.rendering import rendered
from poller.web.service_status import ServiceStatus, folded, further, late, troubled, unready
from poller.web.sources import SOURCES, in_time
from poller.web.throttle import WrongTokens
from poller.web.watchlist_view import ONLY, SORTS, View, WatchlistRow, listed
from poller.web.zone_choice import zoned

_LINES: Final = 12
_FIELDS: Final = 8  # most fields parsed of the login form, which has one
_ENTRIES: Final = 300  # a few new symbols have as many, which the page shows in one line each
_MISSING_NAMED: Final = 5  # symbols that a report lacks; more are folded
_MOST_MISSING: Final = 500

TOKEN: Final = web.AppKey("token", str)
WRONG_TOKENS: Final = web.AppKey("wrong_tokens", WrongTokens)

COLUMNS: Final = (
    ("code", "Symbol", ""),
    ("day", "Last report", ""),
    ("shares", "Shares short", "figure"),
    ("ratio", "Ratio", "figure wide"),
    ("days_to_cover", "Days to cover", "figure wide second"),
    ("volume", "Average volume", "figure wide third"),
    ("percentile", "Percentile, 1\N{NO-BREAK SPACE}y", "figure wide third"),
    ("change", "Change", "figure wide second"),
    ("percent", "Change,\N{NO-BREAK SPACE}%", "figure"),
)
"""Sortable columns: key, head, CSS classes. Phones leave out the wide ones, small windows those
called second, and medium ones those called third."""

OPTIONAL: Final = ("ratio", "days_to_cover", "volume", "percentile")
"""Columns that are left out where no symbol shown has such a figure: markets differ in them."""

SIZES: Final = (50, 100, 500)
"""Symbols of the watchlist on a page, to choose from."""

MOVED_MOST: Final = "-moved"
"""The usual order of the watchlist while a report is new."""

ORDERS: Final = {
    "moved": ("By the size of the change in shares, up or down", "largest", "smallest"),
    "observed": ("By when the report was read", "newest", "oldest"),
}
"""Orders that no column's head tells: sort → words, which comes first descending, ascending."""

FIGURES: Final = (
    ("shares", "Shares short", ""),
    ("change", "Change", ""),
    ("percent", "Change,\N{NO-BREAK SPACE}%", ""),
    ("ratio", "Ratio", ""),
    ("days_to_cover", "Days to cover", "second"),
    ("zscore", "z-score", ""),
    ("close", "Close", "second"),
    ("percentile", "Percentile in report", "second"),
)
"""The figures of a report: key, head, CSS classes as above."""

RANKED: Final = 100
"""Symbols of a report on its page, unless more are asked for."""

MOST_RANKED: Final = 1000
"""Symbols of a report on its page at most: to write more of them would delay polling."""


@zoned
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
        try:
            async with in_time():
                polls = await sources.polls([row.code for row in listing.rows])
                lines = formatting.lines(await sources.streams.last_entries(_ENTRIES))[:_LINES]
        except StoreDown as problem:
            service = sources.stale(str(problem))
    columns, kinds = _columns(listing.rows), _kinds(view.sort)
    return rendered(
        request,
        "index.html.jinja",
        service=service,
        headline=headline(service, len(late(service, rows))),
        reasons=unready(service),
        troubles=folded(further(service)),
        reports=reports,
        listing=listing,
        columns=columns,
        is_wide=any(
            formatting.is_wide(
                (row.shares, row.change), (row.percent, row.ratio, row.days_to_cover)
            )
            for row in listing.rows
        ),
        view=view,
        heads=[
            (key, head, kinds[key], _link(view.with_sort(key)))
            for key, head, _ in COLUMNS
            if key in columns
        ],
        kinds=kinds,
        orders=ORDERS,
        has_turns=any(each.next_at is not None for each in polls.values()),
        page_link=lambda page: f"?{urlencode(view.query(page))}",
        sizes=[(size, _link(replace(view, size=size, page=1))) for size in SIZES],
        spark=lambda row: Markup(sparkline(row.drawn)),  # noqa: S704  made of numbers alone
        late=late(service, listing.rows),
        polls=polls,
        lines=lines,
        all_markets=list(all_markets()),
        only=ONLY,
        pace=PACE,
    )


def _columns(rows: Sequence[WatchlistRow]) -> set[str]:
    """Return the keys of the columns to show for these rows."""
    columns = {key for key, _, _ in COLUMNS}
    empty = {key for key in OPTIONAL if all(SORTS[key](row) is None for row in rows)}
    return columns - empty if rows else columns - {"days_to_cover", "volume", "percentile"}


def _kinds(sort: str) -> dict[str, str]:
    """Return the CSS classes of the watchlist's columns, by key.

    The one it is sorted by is seen on every screen: phones show it in the place of the shares.
    """
    kinds = {key: kind for key, _, kind in COLUMNS}
    by = "change" if sort == "moved" else sort
    if "wide" in kinds.get(by, ""):
        kinds |= {by: "figure", "shares": "figure wide"}
    return kinds


@zoned
async def release(request: web.Request) -> web.Response:
    """Show one report of a market as a whole."""
    sources = request.app[SOURCES]
    check_names(request.query.keys() & {"as_known_at"}, ("sort", "top"))
    asked = report_asked(request, RANKED, MOST_RANKED)
    report = await sources.report(asked.market, asked.day)
    service = await sources.service_status()
    scored = asked.needs_history
    standings = await sources.scored(report, report.standings) if scored else report.standings
    found = ranked(standings, asked.sort)
    shown = found[: asked.top]
    view = next((each for each in service.markets if each.market is asked.market), None)
    newest = view if view is not None and view.day == report.day else None
    return rendered(
        request,
        "release.html.jinja",
        service=service,
        report=report,
        view=newest,
        left=None if newest is None else time_left(service, newest),
        first_seen=service.first_seen.get((asked.market.name, report.day)),
        shown=shown,
        more=len(found) - len(shown),
        is_wide=any(
            formatting.is_wide(
                (each.record.shares, each.change),
                (each.percent, each.record.ratio, each.record.close_price),
            )
            for each in shown
        ),
        named=_MISSING_NAMED,
        most_missing=_MOST_MISSING,
        sort=asked.sort,
        words=SORT_WORDS[asked.sort],
        heads=_heads(asked),
        names=await sources.names([each.code for each in shown]),
        places=formatting.places_of(each.record.close_price for each in shown),
        zscore_link=_report_link("zscore", None),
        whole_link=_report_link(asked.sort, min(len(found), MOST_RANKED)),
        is_most=asked.top == MOST_RANKED,
    )


@zoned
async def releases(request: web.Request) -> web.Response:
    """List the reports that are known, of each market."""
    sources = request.app[SOURCES]
    known = await sources.reports()
    listed = {market: [r for r in known if r["market"] == market.name] for market in all_markets()}
    return rendered(
        request,
        "releases.html.jinja",
        service=await sources.service_status(),
        listed={market: reports for market, reports in listed.items() if reports},
        most=RANKED,
    )


def _heads(asked: ReportAsked) -> list[tuple[str, str, str, str]]:
    """Return key, head, CSS class and link of a report's figures; phones show three of them."""
    phone = {"shares", asked.sort, "change" if asked.sort == "percent" else "percent"}
    shown = {"shares", "close", "percentile", *sorts_of(asked.market)}
    if not asked.needs_history:
        shown.discard("zscore")
    columns = [each for each in FIGURES if each[0] in shown]
    top = None if asked.top == RANKED else asked.top
    return [
        (
            key,
            head,
            _kind(key, kind, phone),
            _report_link(key, top) if key in SORT_WORDS else "",
        )
        for key, head, kind in columns
    ]


def _kind(key: str, kind: str, phone: Collection[str]) -> str:
    """Return the CSS classes of a report's figure. Tiny phones have shares below changes."""
    if key == "shares" and "change" in phone:
        return "figure stacked"
    return "figure" if key in phone else f"figure wide {kind}".rstrip()


def _report_link(sort: str, top: int | None) -> str:
    query = {"sort": sort} | ({} if top is None else {"top": str(top)})
    return f"?{urlencode(query)}"


def headline(service: ServiceStatus, behind: int) -> str:
    """Return the state of the service in a sentence.

    `behind`: how many symbols still show an older report than their market. That is no trouble, as
    some have stopped being reported, but the sentence must not deny what their rows say.
    """
    if reasons := unready(service):
        return f"Not working: {reasons[0]}"
    if troubles := service.troubles:
        return f"Working, with {formatting.plural(len(troubles), ('trouble', 'troubles'))}"
    watched = f"{formatting.plural(service.symbols, ('symbol', 'symbols'))} watched"
    return f"Working: {watched}, {behind:,} of them late" if behind else f"All is well: {watched}"


def refusal(request: web.Request, error: web.HTTPException) -> web.Response:
    """Return the page of an error, with a link back."""
    reason = (error.text or error.reason).strip()
    page = rendered(request, "refusal.html.jinja", title=error.reason, reason=reason)
    page.set_status(error.status)
    return page


async def login(request: web.Request) -> web.Response:
    """Show the login form."""
    return rendered(request, "login.html.jinja", problem="")


async def enter(request: web.Request) -> web.Response:
    """Check the token from the login form, and set the session cookie."""
    token = request.app.get(TOKEN)
    given = await _given(request)
    if token is None:
        raise web.HTTPSeeOther("/")
    try:
        right = is_token(given, token, request.remote, request.app[WRONG_TOKENS])
    except web.HTTPTooManyRequests as early:
        page = rendered(request, "login.html.jinja", problem=(early.text or "").strip())
        page.set_status(early.status)
        page.headers["Retry-After"] = early.headers["Retry-After"]
        return page
    if not right:
        page = rendered(request, "login.html.jinja", problem="That is not the token.")
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


def _link(view: View) -> str:
    return f"?{urlencode(view.query())}"
