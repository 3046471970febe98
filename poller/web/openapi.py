"""The OpenAPI document of `/api`. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from poller.events import data_schemas
from poller.markets import all_markets
from poller.schedule.notice import TYPES
from poller.store.position import AFTER
from poller.web.watchlist_view import MOST_PER_PAGE, ONLY, PERCENT

Schema = Mapping[str, Any]

_SCHEMAS: Final = "#/components/schemas/"
_TEXT: Final[Schema] = {"type": "string"}
_WHOLE: Final[Schema] = {"type": "integer"}
_REAL: Final[Schema] = {"type": "number"}
_SHARES: Final = _WHOLE if all(each.record.STEP == 1 for each in all_markets()) else _REAL
_FLAG: Final[Schema] = {"type": "boolean"}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_TABLE: Final[Schema] = {"text/csv": {"schema": _TEXT}}
_DAY: Final[Schema] = {"type": "string", "format": "date"}
_NAMES: Final = [market.name for market in all_markets()]
_MARKET: Final[Schema] = {"type": "string", "enum": _NAMES}
_PATTERNS: Final = "|".join(rf"{each}\.{each.symbol.pattern}" for each in all_markets())
_CODE: Final[Schema] = {
    "type": "string",
    "pattern": f"^({_PATTERNS})$",
    "example": "HK.00700",
}
_PERCENT: Final[Schema] = {"type": "string", "pattern": f"^({PERCENT})?$"}
_STREAM_ID: Final[Schema] = {"type": "string", "pattern": f"^{AFTER}$"}


def document(
    version: str, *, sorts: Sequence[str], report_sorts: Sequence[str], most_events: int
) -> dict[str, Any]:
    """Return the document: every path, parameter and answer."""
    code = {"name": "code", "in": "path", "required": True, "schema": _CODE}
    history = _list(_reference("Day"))
    known_at = _query("as_known_at", _TIME, "the history as it was known at this time")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Short-interest poller",
            "version": version,
            "description": "Read-only. Times are UTC, trading days are in the market's own zone.",
        },
        "paths": {
            "/api/openapi.json": _get("This document", {"type": "object"}),
            "/api/status": _get("The state of the whole service", _status()),
            "/api/symbols": _listing(sorts),
            "/api/symbols/{code}": _get(
                "A symbol and its history", _symbol(), code, known_at, known=False
            ),
            "/api/symbols/{code}/history.json": _get(
                "Its history", history, code, known_at, known=False
            ),
            "/api/symbols/{code}/history.csv": _get(
                "Its history as a table", {}, code, known_at, known=False, content=_TABLE
            ),
            "/api/symbols/{code}/series.json": _get(
                "Its history in the figures that all markets share, oldest first",
                _list(_series()),
                *(code, known_at),
                known=False,
            ),
            **_releases(report_sorts),
            "/api/events": _get(
                "Entries of the stream, oldest first: the newest, or what follows an id",
                _object(events=_list(_entry())),
                _query("after", _STREAM_ID, "a stream id"),
                _query("count", _up_to(most_events), "most"),
                unchanged="with `after`: the answer is the one whose ETag was sent along",
            ),
        },
        "components": {
            "schemas": data_schemas(f"{_SCHEMAS}{{model}}")
            | {"Day": _day(), "Error": _object(error=_TEXT)}
        },
    }


def _listing(sorts: Sequence[str]) -> dict[str, Any]:
    sort = {"type": "string", "enum": [*sorts, *(f"-{name}" for name in sorts)]}
    return _get(
        "One page of the watchlist",
        _object(found=_WHOLE, page=_WHOLE, pages=_WHOLE, symbols=_list(_row())),
        _query("q", _TEXT, "part of a code or a name"),
        _query("market", {"enum": ["", *_NAMES]}, "this market alone; empty: all"),
        _query("moved", _PERCENT, "moved by more than so many percent; empty: all"),
        _query("only", {"enum": list(ONLY)}, "only these; empty: all"),
        _query("sort", sort, "by this figure, with a minus the largest first"),
        _query("size", _up_to(MOST_PER_PAGE), "how many on a page"),
        _query("page", _up_to(10**6), "from 1"),
    )


def _up_to(most: int) -> Schema:
    return {"type": "integer", "minimum": 1, "maximum": most}


def _releases(sorts: Sequence[str]) -> dict[str, Any]:
    market = {"name": "market", "in": "path", "required": True, "schema": _MARKET}
    day = {"name": "day", "in": "path", "required": True, "schema": _DAY}
    asked = (
        _query(
            "sort",
            {"enum": list(sorts)},
            "the largest first; without the figure, no rank; zscore is told if it ranks",
        ),
        _query("top", _up_to(10**6), "most; all if absent"),
    )
    path = "/api/releases/{market}"
    return {
        path: _get("The newest report of a market", _report(), market, *asked, known=False),
        f"{path}/{{day}}": _get("One of its reports", _report(), market, day, *asked, known=False),
    }


def _get(
    summary: str,
    schema: Schema,
    *parameters: Schema,
    known: bool = True,
    content: Schema | None = None,
    unchanged: str = "",
) -> dict[str, Any]:
    answers: dict[str, Any] = {
        "200": {
            "description": "as asked",
            "content": content or {"application/json": {"schema": schema}},
        },
        "503": _error("Redis does not answer"),
    }
    if unchanged:
        answers["304"] = {"description": unchanged}
    if parameters:
        answers["400"] = _error("a parameter cannot be used; the text says which and why")
    if not known:
        answers["404"] = _error("nothing is known of it")
    return {"get": {"summary": summary, "parameters": list(parameters), "responses": answers}}


def _error(description: str) -> dict[str, Any]:
    content = {"application/json": {"schema": _reference("Error")}}
    return {"description": description, "content": content}


def _query(name: str, schema: Schema, description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _status() -> Schema:
    gateway = _object(name=_TEXT, account=_TEXT, ready=_FLAG, reason=_TEXT, since=_or_null(_TIME))
    resting = _object(
        account=_TEXT,
        market=_TEXT,
        reason=_TEXT,
        since=_or_null(_TIME),
        next_at=_or_null(_TIME),
    )
    process = _object(name=_TEXT, role=_TEXT, version=_TEXT, lease=_or_null(_WHOLE))
    return _object(
        at=_TIME,
        last_seen=_or_null(_TIME),
        ready=_FLAG,
        reasons=_list(_TEXT),
        troubles=_list(_object(subject=_TEXT, reason=_TEXT)),
        defects=_list(_object(component=_TEXT, reason=_TEXT)),
        symbols=_WHOLE,
        loaded=_FLAG,
        simulated=_FLAG,
        stream_entries=_WHOLE,
        processes=_list(process),
        gateways=_list(gateway),
        resting=_list(resting),
        budgets=_list(_object(account=_TEXT, used=_WHOLE, limit=_WHOLE, period_seconds=_REAL)),
        markets=_list(_market()),
        endpoints=_list(_endpoint()),
    )


def _market() -> Schema:
    return _object(
        market=_MARKET,
        symbols=_WHOLE,
        phase={"type": "string", "enum": ["watching", "sweeping", "paused"]},
        day=_or_null(_DAY),
        wanted=_WHOLE,
        covered=_WHOLE,
        probed_at=_or_null(_TIME),
        first_seen=_or_null(_TIME),
        expected_day=_DAY,
        due_since=_or_null(_TIME),
        next_day=_DAY,
        next_at=_TIME,
    )


def _endpoint() -> Schema:
    return _object(
        name=_TEXT,
        disabled=_TEXT,
        unread=_WHOLE,
        waiting=_WHOLE,
        retrying=_WHOLE,
        dead=_WHOLE,
        failing_since=_or_null(_TIME),
        last_success=_or_null(_TIME),
        last_error=_TEXT,
        last_error_at=_or_null(_TIME),
        next_attempt=_or_null(_TIME),
    )


def _row() -> Schema:
    return _object(
        code=_TEXT,
        name=_or_null(_TEXT),
        market=_MARKET,
        trading_day=_or_null(_DAY),
        shares=_or_null(_SHARES),
        ratio=_or_null(_REAL),
        change=_or_null(_SHARES),
        percent=_or_null(_REAL),
        days_to_cover=_or_null(_REAL),
        average_volume=_or_null(_WHOLE),
        year_percentile=_or_null(_REAL),
        year=_or_null({"type": "string", "enum": ["high", "low"]}),
        revision=_WHOLE,
        observed_at=_or_null(_TIME),
    )


def _symbol() -> Schema:
    return _object(
        code=_TEXT,
        name=_or_null(_TEXT),
        issued_shares=_or_null(_WHOLE),
        outstanding_shares=_or_null(_WHOLE),
        watched=_FLAG,
        row=_or_null(_row()),
        next_poll=_or_null(_object(at=_TIME, reason=_TEXT)),
        polls=_list(_object(at=_TIME, answer=_TEXT)),
        history=_list(_reference("Day")),
    )


def _report() -> Schema:
    standing = _object(
        rank=_or_null(_WHOLE),
        percentile=_or_null(_REAL),
        code=_CODE,
        name=_or_null(_TEXT),
        shares=_or_null(_SHARES),
        change=_or_null(_SHARES),
        percent=_or_null(_REAL),
        ratio=_or_null(_REAL),
        days_to_cover=_or_null(_REAL),
        close_price=_or_null(_REAL),
        previous_day=_or_null(_DAY),
        revision=_WHOLE,
        observed_at=_TIME,
        zscore=_or_null(_REAL),
    )
    return _object(
        market=_MARKET,
        trading_day=_DAY,
        sort=_TEXT,
        found=_WHOLE,
        expected=_WHOLE,
        missing=_list(_object(code=_CODE, last_day=_DAY)),
        not_expected=_WHOLE,
        symbols=_list(standing),
    )


def _day() -> Schema:
    """Return the schema of a day: its market's columns, when they were read, what they say."""
    read = _object(
        revision=_WHOLE,
        observed_at=_TIME,
        name=_or_null(_TEXT),
        outstanding_percent=_or_null(_REAL),
        change=_or_null(_SHARES),
        change_percent=_or_null(_REAL),
        days_to_cover_change=_or_null(_REAL),
        zscore=_or_null(_REAL),
        streak=_or_null(_WHOLE),
        split_factor=_or_null(_REAL),
        flags=_or_null(_TEXT),
    )
    kinds = (market.record.__name__ for market in all_markets())
    return {"anyOf": [{"allOf": [_reference(kind), read]} for kind in kinds]}


def _series() -> Schema:
    return _object(
        trading_day=_DAY,
        shares=_or_null(_SHARES),
        ratio=_or_null(_REAL),
        days_to_cover=_or_null(_REAL),
        close_price=_or_null(_REAL),
        revision=_WHOLE,
    )


def _entry() -> Schema:
    """Return the schema of an entry: an event of a market, a notice, or another's texts."""
    read = [
        _object(stream_id=_TEXT, revision=_WHOLE, data=_reference(f"{market}Data"))
        for market in all_markets()
    ]
    notice = _object(stream_id=_TEXT, type={"enum": list(TYPES)}, data={"type": "object"})
    texts = {"type": "object", "additionalProperties": _TEXT, "required": ["stream_id"]}
    return {"anyOf": [*read, notice, texts]}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _reference(name: str) -> Schema:
    return {"$ref": f"{_SCHEMAS}{name}"}
