"""The commands. Logs go to stderr, results to stdout; 0 done, 1 failed, 2 wrong usage.

Each command is a thin reader or writer over the same parts the service is made of.
"""

import asyncio
import os
import re
import sys
from collections.abc import Coroutine, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn

from cyclopts import App, CycloptsError, Group, Parameter

from poller import __version__, app, observe
from poller.config import Config, load
from poller.errors import BadCode, ConfigError, PollerError
from poller.model import Code, parse_code
from poller.status import Role

FAILED: Final = 1
WRONG: Final = 2

ConfigFile = Annotated[
    Path | None,
    Parameter(
        name="--config",
        help="TOML file; else POLLER_CONFIG, else config/poller.toml, else the defaults",
    ),
]

cli = App(
    name="poller",
    help="Watches short interest through Futu OpenD and publishes what is newly reported.",
    version=__version__,
    help_format="plaintext",
    usage="Usage: poller COMMAND [OPTIONS]",
)
cli["--help"].group = cli["--version"].group = Group("Options")
watch = App(
    name="watch", help="Show or change the live watchlist; takes effect in a running service."
)
cli.command(watch)


class Refused(Exception):
    """A command that ends with this text on stderr and this exit code."""

    def __init__(self, code: int, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.code = code


@cli.command
def run(*, simulate: bool = False, config: ConfigFile = None) -> None:
    """Run the service: poll the watchlist and publish what is new.

    Args:
        simulate: use the bundled OpenD simulator on a loopback port instead of your OpenD
        config: TOML file
    """
    _serve(load(config, os.environ), simulate=simulate)


@cli.command
def poll(*, config: ConfigFile = None) -> None:
    """Run the polling role alone, for a process manager."""
    _serve(load(config, os.environ), simulate=False, role="poll")


@cli.command
def deliver(*, config: ConfigFile = None) -> None:
    """Run the delivering role alone; any number of them share the work."""
    settings = load(config, os.environ)
    if not settings.webhooks:
        raise Refused(WRONG, ["nothing to deliver to: add a [[webhooks]] table"])
    observe.configure()
    journal = observe.Journal()
    _finish(app.until_signalled(app.deliver(settings, journal)), journal)


@cli.command
def web(*, config: ConfigFile = None) -> None:
    """Run the status page alone, on this or another machine; it reads Redis only."""
    settings = load(config, os.environ)
    observe.configure()
    journal = observe.Journal()
    _finish(app.until_signalled(app.web(settings, journal)), journal)


def _serve(settings: Config, *, simulate: bool, role: Role = "run") -> None:
    observe.configure()
    journal = observe.Journal()

    async def work() -> None:
        if not simulate:
            await app.serve(settings, journal, role)
            return
        async with app.simulated(settings) as simulated:
            period = simulated.budget.period
            journal(observe.Happened("simulating OpenD", (("budget_period", period),)))
            await app.serve(simulated, journal)

    _finish(app.until_signalled(work()), journal)


def _finish(work: Coroutine[Any, Any, None], journal: observe.Observe | None = None) -> NoReturn:
    """Run to the end and leave the process, without waiting for the SDK's threads."""

    async def whole() -> None:
        code = 0
        try:
            await work
        except BaseException as problem:  # noqa: BLE001  the process ends here, with its reason
            code = _report(problem)
        if journal is not None and code == 0:
            journal(observe.Happened("stopped"))
        app.leave(code)

    asyncio.run(whole())
    raise AssertionError("leave() returned")


def _report(problem: BaseException) -> int:
    """Say on stderr why the program ends; returns its exit code."""
    if isinstance(problem, BaseExceptionGroup):
        return _report(problem.exceptions[0])
    if isinstance(problem, Refused):
        _complain(str(problem))
        return problem.code
    if isinstance(problem, ConfigError | BadCode | CycloptsError):
        _complain(str(problem))
        return WRONG
    if isinstance(problem, PollerError):
        _complain(str(problem) or type(problem).__name__)
        return FAILED
    if isinstance(problem, KeyboardInterrupt | asyncio.CancelledError | BrokenPipeError):
        return 0
    import traceback  # noqa: PLC0415  only for a defect of ours, which is worth its trace

    traceback.print_exception(problem)
    return FAILED


def _complain(text: str) -> None:
    sys.stderr.write("".join(f"poller: {line}\n" for line in text.splitlines()))


@cli.command
def check(*, config: ConfigFile = None) -> None:
    """Validate the configuration whole, then try OpenD, Redis and each webhook."""
    from poller import commands  # noqa: PLC0415  keeps `--help` quick

    settings = load(config, os.environ)
    _finish(commands.check(settings))


@cli.command
def tail(
    *,
    from_: Annotated[str, Parameter(name="--from")] = "$",
    count: int | None = None,
    json: bool = False,
    config: ConfigFile = None,
) -> None:
    """Follow the stream of events.

    Args:
        from_: print what follows this stream id; 0 from the beginning, $ (default) what comes next
        count: stop after so many entries
        json: one JSON object a line
        config: TOML file
    """
    from poller import commands  # noqa: PLC0415

    if not re.fullmatch(r"\$|[0-9]+(-[0-9]+)?", from_):
        raise Refused(WRONG, [f"--from {from_!r} is no stream id: use 0, $ or 1715152502123-0"])
    if count is not None and count < 1:
        raise Refused(WRONG, [f"--count {count}: give a number above 0"])
    settings = load(config, os.environ)
    _finish(app.until_signalled(commands.tail(settings, from_, count, as_json=json)))


@cli.command
def history(
    code: str,
    *,
    format: Literal["table", "csv", "json"] = "table",  # noqa: A002  the option's name
    as_known_at: datetime | None = None,
    config: ConfigFile = None,
) -> None:
    """Print what is known of a symbol, newest first.

    Args:
        code: HK.00700, US.AAPL
        format: table, csv or json
        as_known_at: what was known at this time; UTC unless it names its zone
        config: TOML file
    """
    from poller import commands  # noqa: PLC0415

    (symbol,) = _codes([code])
    moment = as_known_at
    if moment is not None and moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    _finish(commands.history(load(config, os.environ), symbol, format, moment))


@watch.command(name="add")
def watch_add(codes: tuple[str, ...], /, *, config: ConfigFile = None) -> None:
    """Watch these codes from now on, on top of the configuration."""
    from poller import commands  # noqa: PLC0415

    _finish(commands.watch(load(config, os.environ), _codes(codes), wanted=True))


@watch.command(name="remove")
def watch_remove(codes: tuple[str, ...], /, *, config: ConfigFile = None) -> None:
    """Stop watching these codes, whatever the configuration says; their history stays."""
    from poller import commands  # noqa: PLC0415

    _finish(commands.watch(load(config, os.environ), _codes(codes), wanted=False))


@watch.command(name="list")
def watch_list(*, json: bool = False, config: ConfigFile = None) -> None:
    """List the watched codes, where each comes from, and its watermark."""
    from poller import commands  # noqa: PLC0415

    _finish(commands.watch_list(load(config, os.environ), as_json=json))


@cli.command
def backfill(
    codes: tuple[str, ...], /, *, since: date | None = None, config: ConfigFile = None
) -> None:
    """Page older history in, within the shared budget.

    Args:
        codes: HK.00700 US.AAPL …
        since: the oldest day wanted; everything OpenD has, if absent
        config: TOML file
    """
    from poller import commands  # noqa: PLC0415

    wanted = _codes(codes)
    settings = load(config, os.environ)
    _finish(app.until_signalled(commands.backfill(settings, wanted, since or date.min)))


def _codes(texts: Sequence[str]) -> tuple[Code, ...]:
    """Parse all codes, or refuse them with every problem at once."""
    codes, problems = [], []
    for text in texts:
        try:
            codes.append(parse_code(text))
        except BadCode as problem:
            problems.append(str(problem))
    if not texts:
        problems.append("name at least one code, like HK.00700")
    if problems:
        raise Refused(WRONG, problems)
    return tuple(dict.fromkeys(codes))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits the process."""
    try:
        cli(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as problem:
        _complain(str(problem))
        sys.exit(WRONG)
    except (PollerError, Refused) as problem:
        sys.exit(_report(problem))


if __name__ == "__main__":
    main()
