"""`poller run`, `poll`, `deliver`, `web`: a role of the service, from its start to its end."""

import asyncio
import os
import sys
from pathlib import Path
from typing import NoReturn

from poller.commands.ending import begin, finish
from poller.errors import ConfigError
from poller.facts import observe
from poller.facts.notify import Notify
from poller.facts.status import Role
from poller.imports import for_good
from poller.service.descriptors import raise_descriptor_limit
from poller.service.reload import Reload
from poller.settings.config import Config, chosen_file, is_blank, load


def serve(role: Role, file: Path | None) -> NoReturn:
    """Run a role of the service until it is told to end; exits the process."""
    with for_good():
        from poller import app  # noqa: PLC0415  the other commands need less of it, or nothing
        from poller.delivery.senders import check_channels  # noqa: PLC0415

    raise_descriptor_limit()
    warnings: list[str] = []
    settings, journal = begin(file, warnings), observe.Journal()
    for warning in warnings:
        journal(observe.Trouble("secret file", warning))
    notify = Notify(os.environ.get("NOTIFY_SOCKET"))

    def fresh() -> Config:
        """Return the configuration as it is now, refused whole when a part cannot be used."""
        read = load(file, os.environ)
        if had_keys and chosen is not None and is_blank(chosen):  # about to be written, or lost
            raise ConfigError([f"{chosen}: it is empty now: put back what it held, and reload"])
        check_channels([webhook.endpoint() for webhook in read.webhooks])
        return read

    chosen = chosen_file(file, os.environ)
    had_keys = chosen is not None and not is_blank(chosen)
    reload = Reload(asyncio.Event(), fresh)

    def stopping() -> None:
        journal(observe.Happened("stopping"))
        notify(STOPPING=1, STATUS="stopping: what is in flight may end")

    work = app.work_of(role)(settings, journal, notify=notify, reload=reload)
    # whoever runs it in a terminal and closes that wants it ended, not reloaded
    hangup = None if sys.stderr.isatty() else reload.asked.set
    finish(work, journal, stopping=stopping, hangup=hangup)
