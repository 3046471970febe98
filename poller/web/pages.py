"""The pages people read: the watchlist, and one symbol. Server-rendered, whole without script."""

from datetime import date
from typing import Any, Final
from urllib.parse import urlencode

import jinja2
from aiohttp import web
from markupsafe import Markup

from poller import __version__
from poller.facts.status import Polls
from poller.model import Code, Market, Vintage
from poller.web import words
from poller.web.api import code_of, history_of, view_of
from poller.web.charts import chart, sparkline
from poller.web.guard import grant, matches
from poller.web.rows import View, listed
from poller.web.sources import SOURCES, Sources
from poller.web.survey import Survey, unready

_LINES: Final = 12
_ENTRIES: Final = 300  # a first sight of a few symbols fills so many: the page shows it as one line
_HISTORY_SHOWN: Final = 520  # ten years of weeks; the downloads have everything

TEMPLATES: Final = web.AppKey("templates", jinja2.Environment)
TOKEN: Final = web.AppKey("token", str)

COLUMNS: Final = (
    ("code", "Symbol", ""),
    ("day", "Last report", ""),
    ("shares", "Shares short", "figure"),
    ("ratio", "Ratio", "figure wide"),
    ("change", "Change", "figure wide"),
    ("percent", "Change, %", "figure"),
)
"""Sortable columns: key, head, classes. Those called wide are left out on a phone."""


def templates() -> jinja2.Environment:
    """Return the templates; whatever is put into them is escaped."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("poller.web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("number", "signed", "percent", "ratio", "direction", "ago", "days_old", "span"):
        made.filters[name] = getattr(words, name)
    made.filters["plural"] = words.plural
    made.globals["version"] = __version__
    return made


async def index(request: web.Request) -> web.Response:
    """Show the whole service on one screen."""
    sources = request.app[SOURCES]
    view = view_of(request.query)
    survey = await sources.survey()
    listing = listed(list(sources.overview.rows.values()), view)
    if survey.redis:
        polls, lines = dict[Code, Polls](), list[words.Line]()
    else:
        polls = await sources.board.polls([row.code for row in listing.rows])
        lines = words.lines(await sources.store.last_entries(_ENTRIES))[:_LINES]
    return _page(
        request,
        "index.html.jinja",
        survey=survey,
        headline=headline(survey),
        reasons=unready(survey),
        listing=listing,
        view=view,
        heads=[(key, head, kind, _link(view.with_sort(key))) for key, head, kind in COLUMNS],
        page_link=lambda page: f"?{urlencode(view.query(page))}",
        spark=lambda row: Markup(sparkline(row.drawn)),  # noqa: S704  made of numbers alone
        polls=polls,
        lines=lines,
        all_markets=list(Market),
    )


async def symbol(request: web.Request) -> web.Response:
    """Show everything known of one symbol."""
    sources = request.app[SOURCES]
    code = code_of(request)
    vintages = await history_of(sources, code)
    title = f"Short interest of {code}"
    return _page(
        request,
        "symbol.html.jinja",
        survey=await sources.survey(),
        code=code,
        row=sources.overview.rows.get(code),
        chart=Markup(chart(title, list(reversed(vintages)))),  # noqa: S704  it escapes the title
        vintages=vintages[:_HISTORY_SHOWN],
        more=max(0, len(vintages) - _HISTORY_SHOWN),
        earlier=await _earlier(sources, vintages, code),
        polls=(await sources.board.polls([code])).get(code),
    )


async def _earlier(
    sources: Sources, vintages: list[Vintage], code: Code
) -> dict[date, list[Vintage]]:
    """Return what was reported before of the days that were revised, newest vintage first."""
    if not any(vintage.revision for vintage in vintages):
        return {}
    found: dict[date, list[Vintage]] = {}
    newest = {vintage.day: vintage.revision for vintage in vintages}
    for vintage in reversed(await sources.store.vintages(code)):
        if vintage.revision < newest.get(vintage.day, 0):
            found.setdefault(vintage.day, []).append(vintage)
    return found


def headline(survey: Survey) -> str:
    """Return the state of the service in a sentence."""
    if reasons := unready(survey):
        return f"Not working: {reasons[0]}"
    if troubles := survey.troubles:
        return f"Working, with {words.plural(len(troubles), ('trouble', 'troubles'))}"
    return f"All is well: {words.plural(survey.symbols, ('symbol', 'symbols'))} watched"


async def login(request: web.Request) -> web.Response:
    """Show the form that takes the token."""
    return _page(request, "login.html.jinja", wrong=False)


async def enter(request: web.Request) -> web.Response:
    """Take the token from the form and give the cookie that stands for it."""
    token = request.app.get(TOKEN)
    given = (await request.post()).get("token", "")
    if token is None:
        raise web.HTTPSeeOther("/")
    if not isinstance(given, str) or not matches(given.strip(), token):
        page = _page(request, "login.html.jinja", wrong=True)
        page.set_status(401)
        return page
    response = web.Response(status=303, headers={"Location": "/"})
    grant(response, token, secure=request.secure)
    return response


def _page(request: web.Request, template: str, **values: Any) -> web.Response:  # noqa: ANN401
    now = request.app[SOURCES].now()
    text = request.app[TEMPLATES].get_template(template).render(now=now, **values)
    return web.Response(text=text, content_type="text/html")


def _link(view: View) -> str:
    return f"?{urlencode(view.query())}"
