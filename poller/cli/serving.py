"""`poller run`, `poll`, `deliver`, `web`: run a role of the service."""

import asyncio
import os
import sys
from pathlib import Path
from typing import NoReturn

from poller.cli.options import ConfigFile, load_config
from poller.cli.runner import finish
from poller.delivery.destinations import check_usable
from poller.errors import ConfigError
from poller.service import composition
from poller.service.descriptors import raise_descriptor_limit
from poller.service.reload import Reload
from poller.settings.config import Config, chosen_file, is_blank, load
from poller.telemetry import observe
from poller.telemetry.journal import Journal
from poller.telemetry.notify import Notify
from poller.telemetry.roles import Role


def run(*, simulate: bool = False, config: ConfigFile = None) -> None:
    """Run the service: poll the watchlist, publish what is new, deliver it to the webhooks.

    Args:
        simulate: use the bundled OpenD simulator on a loopback port instead of your OpenD
        config: TOML file
    """
    if simulate:
        _simulated(load_config(config))
    serve("run", config)


def poll(*, config: ConfigFile = None) -> None:
    """Run the polling role alone, for a process manager."""
    serve("poll", config)


def deliver(*, config: ConfigFile = None) -> None:
    """Run the delivering role alone; any number of them share the work."""
    serve("deliver", config)


def web(*, config: ConfigFile = None) -> None:
    """Run the status page alone, on this or another machine; it reads Redis only."""
    serve("web", config)


def _simulated(settings: Config) -> NoReturn:
    from poller.cli.run_simulated import play  # noqa: PLC0415  only needed for simulations

    journal = Journal()
    finish(
        play(settings, journal),
        journal,
        stopping=lambda: journal(observe.Happened("stopping")),
        serves=True,
    )


def _configuration(settings: Config, chosen: Path | None) -> observe.Happened:
    """Return which file is in use: in another directory than meant, it would be none."""
    found = str(chosen.absolute()) if chosen else "none, so keys have their defaults"
    details = [("file", found)]
    if settings.redis.url is None:
        details.append(("state_dir", str(settings.state_dir.absolute())))
    return observe.Happened("configuration", tuple(details))


def serve(role: Role, file: Path | None) -> NoReturn:
    """Run a role of the service until a signal, then exit the process."""
    raise_descriptor_limit()
    warnings: list[str] = []
    settings, journal = load_config(file, warnings), Journal()
    chosen = chosen_file(file, os.environ)
    journal(_configuration(settings, chosen))
    for warning in warnings:
        journal(observe.Trouble("secret file", warning))
    notify = Notify(os.environ.get("NOTIFY_SOCKET"))

    def fresh() -> Config:
        """Read the configuration again; raises ConfigError if any part cannot be used."""
        read = load(file, os.environ)
        if had_keys and chosen is not None and is_blank(chosen):  # being written, or lost
            raise ConfigError([f"{chosen}: it is empty now: put back what it held, and reload"])
        check_usable([webhook.endpoint() for webhook in read.webhooks])
        return read

    had_keys = chosen is not None and not is_blank(chosen)
    reload = Reload(asyncio.Event(), fresh)

    def stopping() -> None:
        journal(observe.Happened("stopping"))
        notify(STOPPING=1, STATUS="stopping: finishing what is in flight")

    work = composition.work_of(role)(settings, journal, notify=notify, reload=reload)
    # on a terminal SIGHUP means that it was closed: stop instead of reloading
    hangup = None if sys.stderr.isatty() else reload.asked.set
    finish(work, journal, stopping=stopping, hangup=hangup, serves=True)
