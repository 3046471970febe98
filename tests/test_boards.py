"""The Grafana boards: whole in themselves, and what the data board asks for is what the page has.

Grafana itself is not at hand: its rules are checked as its documentation has them, and each query
of the board is sent to a real page, as the Infinity data source would send it.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import date, datetime
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import yaml
from jsonschema import Draft202012Validator

from poller.model import Code, Instrument
from poller.settings.config import Config
from tests.desk import HK, US, Desk, desk
from tests.service import until
from tests.test_web import get, http

__all__ = ["http"]

FOLDER: Final = Path("config/grafana")
BOARDS: Final = {
    name: json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("poller", "short-interest")
}
DATA: Final = BOARDS["short-interest"]
PLUGIN: Final = "yesoreyeram-infinity-datasource"
DAY: Final = date(2026, 11, 13)
OPTIONAL: Final = {"data.name"}
"""What an event may lack as a whole."""

NUMBER, TEXT = {"type": "integer", "minimum": 0}, {"type": "string", "minLength": 1}
COLUMN = {
    "type": "object",
    "properties": {
        "selector": TEXT,
        "text": {"const": ""},  # renamed by the panel: with all versions of the plugin
        "type": {"enum": ["string", "number", "timestamp"]},
        "timestampFormat": TEXT,
    },
    "required": ["selector", "text", "type"],
    "additionalProperties": False,
}
INFINITY = {
    "properties": {
        "type": {"const": "json"},
        "source": {"const": "url"},
        "parser": {"const": "backend"},
        "format": {"const": "table"},
        "url": {"type": "string", "pattern": "^/api/"},
        "url_options": {"const": {"method": "GET"}},
        "root_selector": {"type": "string"},
        "columns": {"type": "array", "items": COLUMN, "minItems": 1},
    },
    "required": ["refId", "type", "source", "parser", "format", "url", "root_selector", "columns"],
}
SCHEMA: Final = {
    "type": "object",
    "properties": {
        "uid": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,40}$"},
        "schemaVersion": {"const": 39},
        "panels": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": NUMBER,
                    "title": TEXT,
                    "type": {"enum": ["stat", "table", "timeseries", "histogram"]},
                    "gridPos": {
                        "type": "object",
                        "properties": dict.fromkeys("xywh", NUMBER),
                        "required": ["x", "y", "w", "h"],
                        "additionalProperties": False,
                    },
                    "datasource": {"$ref": "#/$defs/source"},
                    "targets": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "properties": {"datasource": {"$ref": "#/$defs/source"}, "refId": TEXT},
                            "required": ["datasource", "refId"],
                        },
                    },
                    "fieldConfig": {"type": "object", "required": ["defaults", "overrides"]},
                },
                "required": ["id", "title", "type", "gridPos", "datasource", "targets"],
            },
        },
    },
    "required": ["uid", "title", "schemaVersion", "time", "templating", "panels"],
    "$defs": {
        "source": {
            "type": "object",
            "properties": {"type": TEXT, "uid": {"pattern": r"^\$\{\w+\}$"}},
            "required": ["type", "uid"],
        }
    },
}


@pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))
def test_a_board_is_whole(board: dict[str, Any]) -> None:
    """It has what Grafana requires; ids are its own, no panel covers another or leaves the grid."""
    Draft202012Validator(SCHEMA).validate(board)
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart = (
            one[start] + one[size] <= other[start] or other[start] + other[size] <= one[start]
            for start, size in ("xw", "yh")
        )
        assert any(apart), (one, other)
    assert all(each["gridPos"]["x"] + each["gridPos"]["w"] <= 24 for each in panels)
    variables = {each["name"]: each for each in board["templating"]["list"]}
    asked = set(re.findall(r"\$\{(\w+)\}", json.dumps(board))) - {"__value"}
    assert asked == variables.keys()
    for source in re.findall(r'\{"type": "([\w-]+)", "uid": "\$\{(\w+)\}"\}', json.dumps(board)):
        assert variables[source[1]]["query"] == source[0]


def targets() -> Iterator[dict[str, Any]]:
    """Yield each query of the data board, that of its variable among them."""
    for panel in DATA["panels"]:
        yield from panel["targets"]
    for variable in DATA["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["infinityQuery"]


def test_panels_name_the_columns_they_have() -> None:
    """What a panel colours, sorts by, shows and links with is a column, by the name it has then."""
    for panel in DATA["panels"]:
        raw = [column["selector"] for query in panel["targets"] for column in query["columns"]]
        (organize,) = panel.get("transformations", [{"options": {"renameByName": {}}}])
        assert organize["options"].get("indexByName", {}).keys() <= {*raw}
        renamed = organize["options"]["renameByName"]
        assert renamed.keys() <= {*raw}
        names = [renamed.get(name, name) for name in raw]
        assert len({*names}) == len(names)
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"] == {
                "id": "byName",
                "options": override["matcher"]["options"],
            }
            assert override["matcher"]["options"] in names
        options = panel["options"]
        assert all(each["displayName"] in names for each in options.get("sortBy", ()))
        shown = options.get("reduceOptions", {}).get("fields", "/.*/").strip("/")
        assert any(re.search(shown, name) for name in names)
        text = json.dumps(panel)
        assert {*re.findall(r"__data\.fields\.(\w+)", text)} <= {*names}
        known = {f"var-{each['name']}" for each in DATA["templating"]["list"]}
        for uid, query in re.findall(r'"/d/([\w-]+)\?([^"]+)"', text):
            assert uid == DATA["uid"]
            assert {pair.partition("=")[0] for pair in query.split("&")} <= known


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Desk]:
    """A page with two symbols of Hong Kong and one of the United States, with a year's history."""
    other = Code("HK.00005")
    async with desk(tmp_path, HK, other, US) as made:
        named = {code: Instrument("NAMED") for code in (HK, other, US)}
        await made.store.instruments.save_instruments(named)
        for code in (HK, other, US):
            await made.publish(code, *(1000 + n * n % 17 for n in range(14)), newest=DAY)
        rows = made.sources.overview.rows
        await until(lambda: all(row.day and row.name for row in rows.values()))
        yield made


async def test_each_query_is_answered_with_its_columns(
    page: Desk, http: aiohttp.ClientSession
) -> None:
    """In both markets a query gives rows; each column is in them, of its type, in one at least."""
    for target in targets():
        rows: list[dict[str, Any]] = []
        for market, code in (("HK", HK), ("US", US)):
            path = target["url"].replace("${market}", market).replace("${code}", code)
            assert "$" not in path
            found = json.loads((await get(http, page.url + path))[0])
            found = found[target["root_selector"]] if target["root_selector"] else found
            assert found, path
            rows += found if isinstance(found, list) else [found]
            if any("timestampFormat" in column for column in target["columns"]):
                days = [row["trading_day"] for row in found]  # a chart wants the oldest first
                assert days == sorted({*days})
        for column in target["columns"]:
            values = [picked(row, column["selector"]) for row in rows]
            if column["selector"] not in OPTIONAL:
                assert any(is_of(column, value) for value in values), (target["url"], column)
            assert all(value is None or is_of(column, value) for value in values), column


def picked(row: Any, selector: str) -> Any:  # noqa: ANN401  any JSON
    """Return what a selector with dots finds; None where there is nothing."""
    for name in selector.split("."):
        row = row.get(name) if isinstance(row, dict) else None
    return row


def is_of(column: dict[str, str], value: Any) -> bool:  # noqa: ANN401  any JSON
    """Tell whether a value is of a column's type."""
    match column["type"]:
        case "number":
            return isinstance(value, int | float)
        case "timestamp" if "timestampFormat" in column:
            assert column["timestampFormat"] == "2006-01-02"  # Go's way of writing a day
            return isinstance(value, str) and bool(date.fromisoformat(value))
        case "timestamp":
            return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
        case _:
            return isinstance(value, str)


def test_what_is_provisioned() -> None:
    """The data source is the board's plugin at the page's usual place; a provider finds boards."""
    place = FOLDER / "provisioning"
    sources = yaml.safe_load((place / "datasources/poller.yaml").read_text(encoding="utf-8"))
    (source,) = sources["datasources"]
    web = Config().web
    assert (sources["apiVersion"], source["type"]) == (1, PLUGIN)
    assert source["url"] == f"http://{web.host}:{web.port}"
    boards = yaml.safe_load((place / "dashboards/poller.yaml").read_text(encoding="utf-8"))
    (provider,) = boards["providers"]
    assert (boards["apiVersion"], provider["type"]) == (1, "file")
    assert provider["options"]["path"].startswith("/")
