"""`/api`: the page's content as JSON, described by `/api/openapi.json`."""

import asyncio
import csv
import io
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final

from aiohttp import ETag, web

from poller import __version__
from poller.markets import Market, all_markets
from poller.model import Code, Instrument, Vintage, market_of
from poller.schedule.facts import NO_FACTS, Facts, facts_of
from poller.schedule.report import ranked
from poller.store.plain import DESCRIBED, described, history_names, history_rows
from poller.store.position import AFTER
from poller.store.reports import document as report_document
from poller.store.reports import rows_of
from poller.store.store import Entry
from poller.web.asked import (
    MOST_TOP,
    check_names,
    code_of,
    known_at,
    report_asked,
    sorts_of,
    view_of,
    whole,
)
from poller.web.histories import names_of, pieces, read
from poller.web.openapi import document
from poller.web.safe_json import entry_text, json_text
from poller.web.service_status import as_json, moment_text, troubled
from poller.web.sources import SOURCES, Sources
from poller.web.watchlist_view import SORTS, listed, series_rows

MOST_EVENTS: Final = 1000
_LASTING: Final = 86_400  # seconds for which caches keep an answer that cannot change
_PIECE: Final = 500  # days parsed and written at a time: some 15 ms
_MOST_WITH_FACTS: Final = 2600  # fifty years of weeks, in some 80 ms; only a spoiled one has more
_JSON: Final = "application/json; charset=utf-8"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Rows = Iterator[Sequence[Mapping[str, Any]]]  # of one symbol, in pieces


def routes() -> list[web.RouteDef]:
    """Return the routes of the API."""
    answers = [
        web.get("/api", contents),
        web.get("/api/", contents),
        web.get("/api/openapi.json", openapi),
        web.get("/api/status", status),
        web.get("/api/symbols", symbols),
        web.get("/api/symbols/{code}", symbol),
        web.get("/api/symbols/{code}/history.json", history_json),
        web.get("/api/symbols/{code}/history.csv", history_csv),
        web.get("/api/symbols/{code}/series.json", series_json),
        web.get("/api/releases", releases),
        web.get("/api/releases/", releases),
        web.get("/api/releases/{market}", release),
        web.get("/api/releases/{market}/{day}", release),
        web.get("/api/events", events),
    ]
    return [web.get(each.path, _strict(each.path, each.handler)) for each in answers]


def _strict(path: str, answer: Any) -> Answer:  # noqa: ANN401  aiohttp's types allow classes, too
    """Return the answer, which refuses parameters that the document does not name."""
    any_market = all_markets()[0].name  # all have the same ones
    described = path.rstrip("/").replace("{market}", any_market)
    item = _document()["paths"].get(described, {"get": {"parameters": []}})
    known = [each["name"] for each in item["get"]["parameters"] if each["in"] == "query"]

    async def strict(request: web.Request) -> web.StreamResponse:
        check_names(request.query, known)
        found: web.StreamResponse = await answer(request)
        return found

    return strict


async def contents(_: web.Request) -> web.Response:
    """List the API: path → summary."""
    return _json({path: item["get"]["summary"] for path, item in _document()["paths"].items()})


async def openapi(_: web.Request) -> web.Response:
    """Return the OpenAPI document."""
    return _json(_document())


async def status(request: web.Request) -> web.Response:
    """Return the state of the whole service."""
    return _json(as_json(await request.app[SOURCES].service_status()))


async def symbols(request: web.Request) -> web.Response:
    """Return one page of the watchlist."""
    sources, view = request.app[SOURCES], view_of(request.query)
    suspects = troubled(await sources.service_status()) if view.only == "trouble" else ()
    listing = listed(list(sources.overview.rows.values()), view, suspects, sources.now())
    return _json(
        {
            "found": listing.found,
            "page": listing.page,
            "pages": listing.pages,
            "symbols": [row.columns() for row in listing.rows],
        }
    )


async def symbol(request: web.Request) -> web.StreamResponse:
    """Return a symbol's row, its last polls and its whole history, newest first."""
    sources = request.app[SOURCES]
    code = code_of(request)
    history = await history_of(sources, code, known_at(request))
    row = sources.overview.rows.get(code)
    polls = (await sources.polls([code])).get(code)
    known = await sources.instrument(code)
    head = {
        "code": code,
        "name": known.name,
        "issued_shares": known.issued_shares,
        "outstanding_shares": known.outstanding_shares,
        "watched": row is not None,
        "row": None if row is None else row.columns(),
        "next_poll": None
        if polls is None or (next_at := moment_text(polls.next_at)) is None
        else {"at": next_at, "reason": polls.reason},
        "polls": [
            {"at": at, "answer": p.answer}
            for p in (polls.polls if polls else ())
            if (at := moment_text(p.at)) is not None
        ],
    }
    opening = f'{json_text(head)[:-1]},"history":['
    rows = _rows(code, history, known)
    return await _streamed(request, {}, _json_rows(rows, opening, "]}"))


async def history_json(request: web.Request) -> web.StreamResponse:
    """Return the history alone, as a JSON file."""
    code = code_of(request)
    rows = await _described(request, code)
    return await _streamed(request, _file(code, "json"), _json_rows(rows, "[", "]"))


async def history_csv(request: web.Request) -> web.StreamResponse:
    """Return the history as a CSV file."""
    code = code_of(request)
    rows = await _described(request, code)
    kind = {"Content-Type": "text/csv; charset=utf-8"}
    return await _streamed(request, _file(code, "csv") | kind, _csv_rows(code, rows))


async def series_json(request: web.Request) -> web.StreamResponse:
    """Return the history in the figures that all markets share, oldest first, as charts want it."""
    code = code_of(request)
    history = await history_of(request.app[SOURCES], code, known_at(request))
    found = pieces(market_of(code), history, _PIECE, newest_first=False)
    rows = (series_rows(each.vintages) for each in found)
    return await _streamed(request, {}, _json_rows(rows, "[", "]"))


async def _described(request: web.Request, code: Code) -> _Rows:
    """Read what is known of a symbol, as of the time the request names."""
    sources = request.app[SOURCES]
    history = await history_of(sources, code, known_at(request))
    return _rows(code, history, await sources.instrument(code))


def _rows(code: Code, history: Mapping[str, str], known: Instrument) -> _Rows:
    """Return the rows of a history, newest first, in pieces, with the columns of `poller export`.

    A day beside the days before it takes them all, so that is computed first.
    """
    facts = _facts(market_of(code), history)

    def piece(vintages: Sequence[Vintage]) -> Sequence[Mapping[str, Any]]:
        of_days = [facts.get(vintage.day, NO_FACTS) for vintage in vintages]
        return described(history_rows(vintages), vintages, known, of_days)

    return (piece(found.vintages) for found in pieces(market_of(code), history, _PIECE))


def _facts(market: Market, history: Mapping[str, str]) -> dict[date, Facts]:
    """Return the facts of the newest days, up to `_MOST_WITH_FACTS`."""
    found = read(market, history, names_of(history)[:_MOST_WITH_FACTS]).vintages
    facts = facts_of(vintage.record for vintage in found)
    return {vintage.day: fact for vintage, fact in zip(found, facts, strict=True)}


def _json_rows(rows: _Rows, opening: str, closing: str) -> Iterator[str]:
    yield opening
    comma = ""
    for piece in rows:
        if piece:
            yield comma + json_text(piece)[1:-1]
            comma = ","
    yield closing


def _csv_rows(code: Code, rows: _Rows) -> Iterator[str]:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*history_names([code]), *DESCRIBED], lineterminator="\r\n")
    writer.writeheader()
    for piece in rows:
        writer.writerows(piece)
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


async def _streamed(
    request: web.Request, headers: Mapping[str, str], texts: Iterator[str]
) -> web.StreamResponse:
    """Answer in pieces, and let other tasks run between them."""
    response = web.StreamResponse(headers={"Content-Type": _JSON, **headers})
    await response.prepare(request)
    if request.method != "HEAD":
        for text in texts:
            await response.write(text.encode())
            await asyncio.sleep(0)
    return response


async def release(request: web.Request) -> web.Response:
    """Return one report of a market as a whole, by default with all of its symbols."""
    sources = request.app[SOURCES]
    asked = report_asked(request, MOST_TOP, MOST_TOP)
    report = await sources.report(asked.market, asked.day)
    if asked.needs_history:
        shown = ranked(await sources.scored(report, report.standings), asked.sort)[: asked.top]
    else:
        shown = await sources.scored(report, report.ranked(asked.sort)[: asked.top])
    names = await sources.names([each.code for each in shown])
    return _json(report_document(report, asked.sort, rows_of(shown, names)))


async def releases(request: web.Request) -> web.Response:
    """Return every report that is known, newest first."""
    found = await request.app[SOURCES].reports()
    return _json({"releases": [{name: _plain(each[name]) for name in each} for each in found]})


def _plain(value: object) -> object:
    match value:
        case datetime():
            return moment_text(value)
        case date():
            return str(value)
        case _:
            return value


async def events(request: web.Request) -> web.Response:
    """Return entries of the stream: those after `after`, or the newest."""
    sources = request.app[SOURCES]
    count = whole(request.query, "count", 100, MOST_EVENTS)
    after = request.query.get("after")
    if after is not None and not re.fullmatch(AFTER, after, re.ASCII):
        raise web.HTTPBadRequest(text=f"after: {after!r} is no stream id, like 1715152502123-0")
    await sources.heard()
    if after is None:
        return _entries(await sources.streams.last_entries(count))
    found = await sources.streams.read(after, count=count, block=None)
    # entries never change: their ids tell whether a client has this answer already
    tag = ETag(f"{found[0].id}.{found[-1].id}.{len(found)}" if found else f"{after}.0")
    known = {each.value for each in request.if_none_match or ()}  # a proxy may have made it weak
    response = web.Response(status=304) if tag.value in known else _entries(found)
    response.etag = tag
    # nothing comes between the entries of a full answer; what follows them has a cursor of its own
    lasting = f"max-age={_LASTING}, immutable" if len(found) == count else "no-cache"
    whose = "public" if sources.config.web.token is None else "private"
    response.headers["Cache-Control"] = f"{whose}, {lasting}"
    return response


def _entries(found: Sequence[Entry]) -> web.Response:
    texts = ",".join(map(entry_text, found))
    return web.Response(text=f'{{"events":[{texts}]}}', content_type="application/json")


def _document() -> dict[str, Any]:
    return document(
        __version__,
        sorts=list(SORTS),
        report_sorts={market.name: sorts_of(market) for market in all_markets()},
        most_events=MOST_EVENTS,
    )


async def history_of(
    sources: Sources, code: Code, moment: datetime | None = None
) -> Mapping[str, str]:
    """Return the raw history hash, or raise HTTPNotFound. `moment`: as it was known then."""
    await sources.heard()
    (history,) = await sources.status_store.histories([code])
    if not history and code not in sources.overview.rows:
        raise web.HTTPNotFound(text=f"{code} is not watched; to watch it: poller watch add {code}")
    if moment is None:
        return history
    known = [each async for each in sources.archive.histories([code], moment)]
    return {str(one.day): one.to_json() for each in known for one in each.vintages}


def _file(code: Code, kind: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{code}.{kind}"'}


def _json(value: Mapping[str, Any] | Sequence[Any]) -> web.Response:
    return web.Response(text=json_text(value), content_type="application/json")
