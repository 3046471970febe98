"""The pages people read: the watchlist, and one symbol. Server-rendered, whole without script."""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import jinja2
from aiohttp import web
from markupsafe import Markup

from poller import __version__
from poller.markets import all_markets
from poller.model import Code, Vintage, market_of
from poller.printable import printable
from poller.telemetry.status import Polls
from poller.web import formatting
from poller.web.api import code_of, history_of, view_of
from poller.web.auth import grant, is_token
from poller.web.charts import FRAMES, chart, sparkline
from poller.web.histories import names_of, read, readable
from poller.web.service_status import Survey, further, unready
from poller.web.sources import SOURCES, Sources
from poller.web.throttle import WrongTokens
from poller.web.watchlist_view import Row, View, is_below, listed

_LINES: Final = 12
_FIELDS: Final = 8  # of the form, which has one
_ENTRIES: Final = 300  # a first sight of a few symbols fills so many: the page shows it as one line
_HISTORY_SHOWN: Final = 520  # ten years of weeks; the downloads have everything
_EARLIER: Final = 20  # replaced vintages of one day

TEMPLATES: Final = web.AppKey("templates", jinja2.Environment)
TOKEN: Final = web.AppKey("token", str)
WRONG_TOKENS: Final = web.AppKey("wrong_tokens", WrongTokens)

COLUMNS: Final = (
    ("code", "Symbol", ""),
    ("day", "Last report", ""),
    ("shares", "Shares short", "figure"),
    ("ratio", "Ratio", "figure wide"),
    ("change", "Change", "figure wide second"),
    ("percent", "Change, %", "figure"),
)
"""Sortable columns: key, head, classes. Those called wide are left out on a phone, the
second ones on a small window, too."""


FILTERS: Final = (
    *("number", "decimal", "signed", "percent", "ratio", "direction", "plural"),
    *("cover", "cover_note", "ratio_source", "ago", "due", "local", "days_old", "at_work"),
)
"""The words templates put figures and times into."""


def templates() -> jinja2.Environment:
    """Return the templates; whatever is put into them is escaped."""
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
    made.tests["below_threshold"] = is_below
    made.globals |= {"version": __version__}
    return made


def _shown(value: object) -> object:
    """Return what a template puts into the page, whoever wrote it: nothing a browser turns around.

    Markup is ours. Spaces stay as they are: some of ours must not break.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    spaced = value.replace("\u00a0", " ").replace("\u202f", " ").replace("\n", " ")
    return value if spaced == printable(spaced, LONGEST) else printable(value, LONGEST)


LONGEST: Final = 4_000
"""Characters of one text of the page, as in the log."""


async def index(request: web.Request) -> web.Response:
    """Show the whole service on one screen."""
    sources = request.app[SOURCES]
    view = view_of(request.query)
    survey = await sources.survey()
    listing = listed(list(sources.overview.rows.values()), view)
    polls, lines = dict[Code, Polls](), list[formatting.Line]()
    if not survey.redis:
        polls = await sources.polls([row.code for row in listing.rows])
        lines = formatting.lines(await sources.streams.last_entries(_ENTRIES))[:_LINES]
    return _page(
        request,
        "index.html.jinja",
        survey=survey,
        headline=headline(survey),
        reasons=unready(survey),
        troubles=further(survey),
        listing=listing,
        view=view,
        heads=[(key, head, kind, _link(view.with_sort(key))) for key, head, kind in COLUMNS],
        page_link=lambda page: f"?{urlencode(view.query(page))}",
        spark=lambda row: Markup(sparkline(row.drawn)),  # noqa: S704  made of numbers alone
        late=_late(survey, listing.rows),
        polls=polls,
        lines=lines,
        all_markets=list(all_markets()),
    )


async def symbol(request: web.Request) -> web.Response:
    """Show what is known of one symbol: its newest days, as many as a page bears."""
    sources = request.app[SOURCES]
    code = code_of(request)
    raw = await history_of(sources, code)
    names = names_of(raw)
    history = read(market_of(code), raw, names[:_HISTORY_SHOWN])
    vintages = history.vintages
    survey = await sources.survey()
    row = sources.overview.rows.get(code)
    return _page(
        request,
        "symbol.html.jinja",
        survey=survey,
        code=code,
        market=market_of(code),
        row=row,
        charts=_charts(f"Short interest of {code}", vintages),
        places=formatting.places_of(vintage.record.close_price for vintage in vintages),
        late=_late(survey, [row] if row is not None else []),
        vintages=vintages,
        unreadable=history.complaint,
        more=max(0, len(names) - _HISTORY_SHOWN),
        earlier=await _earlier(sources, vintages, code),
        polls=(await sources.polls([code])).get(code),
    )


def _charts(title: str, vintages: Sequence[Vintage]) -> list[Markup]:
    days = list(reversed(vintages))
    drawn = [chart(title, days, frame) for frame in FRAMES]
    return [Markup(text) for text in drawn if text]  # noqa: S704  it escapes the title


def _late(survey: Survey, rows: Sequence[Row]) -> dict[Code, date | None]:
    """Return who stopped at an older day → the day its market has reached."""
    views = {view.market: view for view in survey.markets}
    found = ((row.code, views.get(row.market), row) for row in rows)
    return {code: view.day for code, view, row in found if view is not None and view.is_late(row)}


async def _earlier(
    sources: Sources, vintages: Sequence[Vintage], code: Code
) -> dict[date, list[Vintage]]:
    """Return what was reported before of the days that were revised, newest vintage first."""
    names = [
        f"{vintage.day}:{revision}"
        for vintage in vintages
        for revision in reversed(range(max(0, vintage.revision - _EARLIER), vintage.revision))
    ]
    found: dict[date, list[Vintage]] = {}
    shown = names[:_HISTORY_SHOWN]
    for name, text in zip(shown, await sources.board.vintages(code, shown), strict=True):
        day = name.partition(":")[0]
        if text is not None and (vintage := readable(market_of(code), day, text)) is not None:
            found.setdefault(vintage.day, []).append(vintage)
    return found


def headline(survey: Survey) -> str:
    """Return the state of the service in a sentence."""
    if reasons := unready(survey):
        return f"Not working: {reasons[0]}"
    if troubles := survey.troubles:
        return f"Working, with {formatting.plural(len(troubles), ('trouble', 'troubles'))}"
    return f"All is well: {formatting.plural(survey.symbols, ('symbol', 'symbols'))} watched"


def refusal(request: web.Request, error: web.HTTPException) -> web.Response:
    """Return the page that says why there is nothing to show, with a way back."""
    reason = (error.text or error.reason).strip()
    page = _page(request, "refusal.html.jinja", title=error.reason, reason=reason)
    page.set_status(error.status)
    return page


async def login(request: web.Request) -> web.Response:
    """Show the form that takes the token."""
    return _page(request, "login.html.jinja", problem="")


async def enter(request: web.Request) -> web.Response:
    """Take the token from the form and give the cookie that stands for it."""
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

    Nothing of what was sent is repeated, neither here nor in the log: it may be a token.
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
    # a report may spell lone surrogates
    body = text.encode(errors="replace")
    return web.Response(body=body, content_type="text/html", charset="utf-8")


def _link(view: View) -> str:
    return f"?{urlencode(view.query())}"
