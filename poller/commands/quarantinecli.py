"""The `quarantine` commands: what is held, and the operator's decision."""

from datetime import date
from pathlib import Path

from cyclopts import App

from poller.commands.ending import begin, finish
from poller.commands.options import ConfigFile, codes_of
from poller.detect.held import Ruling

quarantine = App(
    name="quarantine", help="Show figures that cannot be true and are held, and rule on them."
)


@quarantine.command(name="list")
def quarantine_list(*, json: bool = False, config: ConfigFile = None) -> None:
    """List the held figures, why they are held, and what was decided.

    Args:
        json: one JSON list
        config: TOML file
    """
    from poller.commands import quarantine as held  # noqa: PLC0415

    finish(held.show_held(begin(config, reading=True), as_json=json))


@quarantine.command(name="release")
def quarantine_release(
    code: str, days: tuple[date, ...] = (), /, *, config: ConfigFile = None
) -> None:
    """Let the next poll publish the held figures of these days, or all that wait.

    Args:
        code: HK.00700, US.AAPL
        days: 2026-04-30 …
        config: TOML file
    """
    _rule(code, days, Ruling.RELEASED, config)


@quarantine.command(name="discard")
def quarantine_discard(
    code: str, days: tuple[date, ...] = (), /, *, config: ConfigFile = None
) -> None:
    """Drop the held figures of these days, or all that wait.

    Another figure of such a day is checked again.

    Args:
        code: HK.00700, US.AAPL
        days: 2026-04-30 …
        config: TOML file
    """
    _rule(code, days, Ruling.DISCARDED, config)


def _rule(code: str, days: tuple[date, ...], ruling: Ruling, config: Path | None) -> None:
    from poller.commands import quarantine as held  # noqa: PLC0415

    (symbol,) = codes_of([code])
    wanted = tuple(dict.fromkeys(days))
    finish(held.rule(begin(config, reading=True), symbol, wanted, ruling))
