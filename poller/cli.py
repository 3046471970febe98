"""The commands. Logs go to stderr, results to stdout; 0 done, 1 failed, 2 wrong usage.

Each command is a thin reader or writer over the same parts the service is made of.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from cyclopts import App, CycloptsError, Group, Parameter, validators

from poller import __version__
from poller.commands import readcli
from poller.commands.configcli import configuration
from poller.commands.ending import FAILED, WRONG, CommandFailed, begin, conclude, finish
from poller.commands.options import ConfigFile, SymbolCounts, codes_of, refusal, whole
from poller.commands.quarantinecli import quarantine
from poller.commands.serving import serve
from poller.commands.webhookcli import webhook
from poller.facts import observe
from poller.settings.config import Config, chosen_file


def _worth_telling(default: object) -> str | None:
    """Say in the help what is taken where an option is absent, unless that is nothing."""
    return str(default) if default not in (None, False, ()) else None


cli = App(
    name="poller",
    help="Watches short interest through Futu OpenD and publishes what is newly reported.",
    version=__version__,
    help_format="plaintext",
    usage="Usage: poller COMMAND [OPTIONS]",
    default_parameter=Parameter(negative=(), show_default=_worth_telling),
)
cli["--help"].group = cli["--version"].group = Group("Options")
watch = App(
    name="watch", help="Show or change the live watchlist; takes effect in a running service."
)
cli.command(watch)
cli.command(quarantine)
cli.command(webhook)
cli.command(configuration)
service = App(name="service", help="Put the poller under systemd.")
cli.command(service)
for reader in (readcli.tail, readcli.history, readcli.release, readcli.export):
    cli.command(reader)


@cli.command
def run(*, simulate: bool = False, config: ConfigFile = None) -> None:
    """Run the service: poll the watchlist, publish what is new, deliver it to the webhooks.

    Args:
        simulate: use the bundled OpenD simulator on a loopback port instead of your OpenD
        config: TOML file
    """
    if simulate:
        _simulated(begin(config))
    serve("run", config)


@cli.command
def poll(*, config: ConfigFile = None) -> None:
    """Run the polling role alone, for a process manager."""
    serve("poll", config)


@cli.command
def deliver(*, config: ConfigFile = None) -> None:
    """Run the delivering role alone; any number of them share the work."""
    serve("deliver", config)


@cli.command
def web(*, config: ConfigFile = None) -> None:
    """Run the status page alone, on this or another machine; it reads Redis only."""
    serve("web", config)


def _simulated(settings: Config) -> NoReturn:
    from poller.commands.playing import play  # noqa: PLC0415  only those who simulate pay for it

    journal = observe.Journal()
    finish(play(settings, journal), journal, stopping=lambda: journal(observe.Happened("stopping")))


@cli.command
def check(*, config: ConfigFile = None) -> None:
    """Validate the configuration whole, then try OpenD, Redis and each webhook."""
    from poller.commands import check as trial  # noqa: PLC0415  keeps `--help` quick

    warnings: list[str] = []
    settings = begin(config, warnings)
    finish(trial.check(settings, chosen_file(config, os.environ), warnings))


@cli.command
def explain(code: str, *, config: ConfigFile = None) -> None:
    """Say why nothing was heard of a symbol.

    Args:
        code: HK.00700, US.AAPL
        config: TOML file
    """
    from poller.commands import explain as explanation  # noqa: PLC0415

    (symbol,) = codes_of([code])
    finish(explanation.explain(begin(config, reading=True), symbol))


@watch.command(name="add")
def watch_add(codes: tuple[str, ...], /, *, config: ConfigFile = None) -> None:
    """Watch these codes from now on, on top of the configuration.

    Args:
        codes: HK.00700 US.AAPL …
        config: TOML file
    """
    from poller.commands import everyday  # noqa: PLC0415

    finish(everyday.watch(begin(config, reading=True), codes_of(codes), wanted=True))


@watch.command(name="remove")
def watch_remove(codes: tuple[str, ...], /, *, config: ConfigFile = None) -> None:
    """Stop watching these codes, whatever the configuration says; their history stays.

    Args:
        codes: HK.00700 US.AAPL …
        config: TOML file
    """
    from poller.commands import everyday  # noqa: PLC0415

    finish(everyday.watch(begin(config, reading=True), codes_of(codes), wanted=False))


@watch.command(name="list")
def watch_list(
    codes: tuple[str, ...] = (), /, *, json: bool = False, config: ConfigFile = None
) -> None:
    """List the watched codes, where each comes from, and its watermark.

    Args:
        codes: only these; all that are watched, if none is named
        json: one JSON list
        config: TOML file
    """
    from poller.commands import everyday  # noqa: PLC0415

    wanted = codes_of(codes) if codes else ()
    finish(everyday.watch_list(begin(config, reading=True), wanted, as_json=json))


@cli.command
def gaps(codes: tuple[str, ...] = (), /, *, json: bool = False, config: ConfigFile = None) -> None:
    """Print reporting days that the calendar expects and history lacks.

    Args:
        codes: HK.00700 US.AAPL …; all that are watched, if none is named
        json: one JSON list
        config: TOML file
    """
    from poller.commands import everyday  # noqa: PLC0415

    wanted = codes_of(codes) if codes else ()
    finish(everyday.gaps(begin(config, reading=True), wanted, as_json=json))


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
    from poller.commands import everyday  # noqa: PLC0415

    wanted = codes_of(codes)
    settings = begin(config)
    finish(everyday.backfill(settings, wanted, since or date.min))


Share = Annotated[float, Parameter(validator=validators.Number(gte=0, lte=0.9))]
_USUAL = SymbolCounts()
Few = Annotated[int, Parameter(converter=whole, validator=validators.Number(gte=1, lte=99))]


@cli.command
def simulate(  # noqa: PLR0913  each is one thing to vary
    *,
    made_up: Annotated[SymbolCounts, Parameter(name="*")] = _USUAL,  # type: ignore[valid-type]
    weeks: Few = 12,
    seed: Annotated[int, Parameter(converter=whole)] = 1,
    release: Literal[
        "simultaneous", "staggered", "early", "late", "holiday", "daily"
    ] = "simultaneous",
    without_rows: Share = 0.0,
    gateways: Few = 1,
    accounts: Few = 1,
    faults: Share = 0.0,
    json: bool = False,
    plot: Path | None = None,
    config: ConfigFile = None,
) -> None:
    """Play weeks of polling in seconds, and say how late each report would be told.

    Args:
        made_up: symbols of each market
        weeks: how long
        seed: another one brings other instants; the same one the same run
        release: how reports come: all symbols at once, over two hours, a day early, two days late,
            after a holiday, or every day
        without_rows: share of the symbols that never have rows
        gateways: how many OpenD share the work
        accounts: how many accounts they are logged in to; each has a budget of its own
        faults: share of the requests that get no answer
        json: one JSON object
        plot: write an SVG picture of the latencies to this file
        config: TOML file; its intervals, budget and weights count
    """
    from poller.commands import planning  # noqa: PLC0415

    problems = []
    if accounts > gateways:
        problems.append(f"--accounts {accounts}: each needs a gateway; raise --gateways {gateways}")
    counts: dict[str, int] = {name.upper(): count for name, count in asdict(made_up).items()}
    if not any(counts.values()):
        asked = " ".join(f"--{name.lower()} 0" for name in counts)
        problems.append(f"{asked}: there is nothing to poll")
    if plot is not None and (reason := _unwritable(plot)):
        problems.append(f"--plot {plot}: {reason}; name a file, like latency.svg")
    if problems:
        raise CommandFailed(WRONG, problems)
    season = planning.season(counts, weeks, seed, release, without_rows)
    setting = planning.setting(begin(config, reading=True), season, gateways, accounts, faults)
    if not planning.plan(setting, as_json=json, plot=plot):
        raise CommandFailed(
            FAILED, ["a report was missed or told twice: a defect, worth reporting"]
        )


@cli.command
def demo() -> None:
    """Show the service at work for half a minute, against a simulated OpenD."""
    from poller.commands import demo as play  # noqa: PLC0415

    sys.exit(play.main())


@cli.command
def health(*, config: ConfigFile = None) -> None:
    """Ask the page whether the service is ready; the exit code is 0 or, with reasons, 1.

    It asks where web.host and web.port say, with web.token, and waits for 5 s at
    the most: made for a container's HEALTHCHECK.

    Args:
        config: TOML file
    """
    from poller.commands import health as asking  # noqa: PLC0415

    finish(asking.health(begin(config, only=("web",)).web))


@service.command(name="install")
def service_install(
    *,
    role: Literal["run", "poll", "deliver", "web"] = "run",
    dry_run: bool = False,
    config: ConfigFile = None,
) -> None:
    """Write the systemd unit for this environment; print it unless root.

    Args:
        role: the whole service, or one role of it in a unit of its own
        dry_run: print the unit, write nothing
        config: TOML file
    """
    from poller.commands.install import install, installed, place_of  # noqa: PLC0415
    from poller.service import unit  # noqa: PLC0415

    place = place_of(config, os.environ, installed())
    install(unit.UnitRole(role), place, os.environ, dry_run=dry_run)


def _unwritable(file: Path) -> str | None:
    """Say why a file cannot be written; None: it can."""
    folder = file.absolute().parent
    if file.is_dir():
        return "it is a directory"
    if not folder.is_dir():
        return f"there is no directory {folder}"
    if not os.access(file if file.exists() else folder, os.W_OK):
        return "nothing may be written there"
    return None


def _config_last(arguments: Sequence[str]) -> list[str]:
    """Let `--config FILE` stand before the command as well."""
    match arguments:
        case ["--config", file, command, *rest]:
            return [command, *rest, "--config", file]
        case [option, command, *rest] if option.startswith("--config="):
            return [command, *rest, option]
        case _:
            return list(arguments)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command; exits the process."""
    given = _config_last(sys.argv[1:] if arguments is None else arguments)

    def command() -> None:
        try:
            cli(given, exit_on_error=False, print_error=False)
        except CycloptsError as problem:
            raise refusal(problem) from None

    conclude(command)


if __name__ == "__main__":
    main()
