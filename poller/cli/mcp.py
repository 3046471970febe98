"""`poller mcp`: a read-only server of the Model Context Protocol, on stdin and stdout.

Each tool reads Redis and answers with plain JSON. Nothing is written, and OpenD is never asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime
from functools import wraps
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any, Final, ParamSpec

from pydantic import Field

from poller import __version__
from poller.cli.explain import explanation
from poller.cli.gaps import gaps_of
from poller.cli.options import ConfigFile, Sort, aware, load_config
from poller.cli.release import read_whole
from poller.cli.runner import WRONG, CommandFailed, finish
from poller.cli.stores import Failure, beside, instruments_of, store_of
from poller.errors import PollerError, how_to_install
from poller.markets import Market, market_named, no_market
from poller.model import Instrument, isoformat, parse_code, unique
from poller.settings.config import Config
from poller.store.archive import Archive
from poller.store.plain import described, history_rows
from poller.store.reports import document, rows_of, timeline

if TYPE_CHECKING:
    from mcp.server import MCPServer

INSTALL: Final = how_to_install("mcp", "mcp")

_MOST_ROWS: Final = 520
"""Rows of one answer: ten years of Hong Kong's weeks."""

_MOST_CODES: Final = 100
_LIMIT: Final = 60.0
"""Seconds of one call: z-scores of thousands of symbols take some ten."""

_ABOUT: Final = (
    "Short interest as Hong Kong (weekly, SFC) and the United States (twice a month, FINRA) report "
    "it, every revision kept. Codes are HK.00700 or US.AAPL; days are trading days in the market's "
    "own time zone, times UTC. Shares are counts, percent and ratio are percent. Absent is null."
)

_Code = Annotated[str, Field(description="HK.00700, US.AAPL")]
_Codes = Annotated[
    list[str], Field(description="HK.00700, US.AAPL …; empty: all watched", max_length=_MOST_CODES)
]
_MarketName = Annotated[str, Field(description="what its codes begin with: HK or US")]
_Day = Annotated[date | None, Field(description="its trading day; the newest, if absent")]
_Moment = Annotated[
    datetime | None, Field(description="what was known then; UTC unless it names a time zone")
]
_Rows = Annotated[int, Field(ge=1, le=_MOST_ROWS, description="at most so many, the newest first")]
_Top = Annotated[int, Field(ge=1, le=_MOST_ROWS, description="at most so many symbols")]
_Sort = Annotated[Sort, Field(description="by the size of this figure, the largest first")]
_Json = dict[str, Any]
_Given = ParamSpec("_Given")


def mcp(*, config: ConfigFile = None) -> None:
    """Serve the Model Context Protocol on stdin and stdout: history, reports, gaps, explanations.

    Args:
        config: TOML file
    """
    finish(_serve(load_config(config, reading=True)), serves=True)


async def _serve(config: Config) -> None:
    """Serve until stdin ends; once cancelled, leave the thread that reads it behind.

    Nothing interrupts that read, and the process ends without waiting for threads.
    """
    server = server_of_tools(config)
    await asyncio.shield(asyncio.create_task(server.run_stdio_async(), name="serve"))


def server_of_tools(config: Config) -> "MCPServer":
    """Return the server with its tools; raises CommandFailed without the package."""
    try:
        from mcp.server import MCPServer  # noqa: PLC0415  an extra
        from mcp.types import ToolAnnotations  # noqa: PLC0415
    except ImportError:
        raise CommandFailed(WRONG, [f"poller mcp needs the package mcp: {INSTALL}"]) from None
    server = MCPServer("short-interest", version=__version__, instructions=_ABOUT)
    reads = ToolAnnotations(
        read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )
    for tool in Tools(config).all():
        server.add_tool(tool, annotations=reads)
    return server


class Tools:
    """The tools of one configuration; each raises a PollerError whose text says what to do."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def all(self) -> Sequence[Callable[..., Awaitable[_Json]]]:
        """Return every tool."""
        tools = (self.history, self.releases, self.biggest_moves, self.gaps, self.explain)
        return [_bounded(tool) for tool in tools]

    async def history(self, code: _Code, as_known_at: _Moment = None, limit: _Rows = 52) -> _Json:
        """Return a symbol's reports, the newest first, as last revised or as known at some time.

        The latter is what a backtest needs: without figures that were revised or published later.
        """
        symbol = parse_code(code)
        problems: list[str] = []
        async with (
            store_of(self._config, existing=True) as store,
            beside(store, Archive) as archive,
        ):
            (found,) = [each async for each in archive.histories([symbol], aware(as_known_at))]
            known = (await instruments_of(store, [symbol], problems)).get(symbol, Instrument())
        rows = described(history_rows(found.vintages), found.vintages, known)
        if not rows and not found.unreadable:
            problems.append(f"nothing is known of {symbol}; the tool explain says why")
        return {
            "code": symbol,
            "days": len(rows),
            "rows": rows[:limit],
            "problems": [*found.unreadable, *problems],
        }

    async def releases(self, market: _MarketName = "", limit: _Rows = 20) -> _Json:
        """Return when the reports of a market, or of all, were seen and complete, newest first."""
        wanted = None if market == "" else _market(market)
        async with (
            store_of(self._config, existing=True) as store,
            beside(store, Archive) as archive,
        ):
            notices = [n async for n in archive.notices() if wanted in {None, n.market}]
        rows = sorted(timeline(notices), key=itemgetter("trading_day", "market"), reverse=True)
        return {"releases": [_plain(row) for row in rows[:limit]]}

    async def biggest_moves(
        self,
        market: _MarketName,
        day: _Day = None,
        sort: _Sort = "change",
        top: _Top = 20,
    ) -> _Json:
        """Return one report of a market: who moved most, how many show it, and who is missing."""
        chosen = _market(market)
        if sort == "days_to_cover" and not chosen.has_cover:
            raise Failure(f"{chosen} reports no days to cover: sort by another figure")
        report, names, problems = await read_whole(
            self._config, chosen, day, zscores=sort == "zscore"
        )
        rows = rows_of(report.ranked(sort)[:top], names)
        return document(report, sort, rows) | {"problems": problems}

    async def gaps(self, codes: _Codes = []) -> _Json:  # noqa: B006  only read
        """Return reporting days that the calendar expects and history lacks."""
        wanted = unique(parse_code(code) for code in codes)
        found, failures = await gaps_of(self._config, wanted)
        return {"gaps": [each.as_json() for each in found], "problems": failures}

    async def explain(self, code: _Code) -> _Json:
        """Return why a symbol has published nothing, or when it is polled next, line by line."""
        rows = await explanation(self._config, parse_code(code))
        return {"code": code, "lines": [{"subject": name, "text": text} for name, text in rows]}


def _plain(row: Mapping[str, Any]) -> _Json:
    """Return a row with days and times as JSON has them."""
    return {
        name: isoformat(value)
        if isinstance(value, datetime)
        else str(value)
        if isinstance(value, date)
        else value
        for name, value in row.items()
    }


def _bounded(tool: Callable[_Given, Awaitable[_Json]]) -> Callable[_Given, Awaitable[_Json]]:
    """Return a tool that takes a minute at most, and tells what was expected to go wrong."""
    from mcp.server.mcpserver.exceptions import ToolError  # noqa: PLC0415  an extra

    @wraps(tool)
    async def answered(*args: _Given.args, **kwargs: _Given.kwargs) -> _Json:
        try:
            async with asyncio.timeout(_LIMIT):
                return await tool(*args, **kwargs)
        except TimeoutError:
            raise ToolError(f"not done within {_LIMIT:.0f} s: ask for less") from None
        except (PollerError, CommandFailed) as problem:
            raise ToolError(str(problem)) from None

    return answered


def _market(name: str) -> Market:
    chosen = market_named(name.upper())
    if chosen is None:
        raise Failure(no_market(name))
    return chosen
