"""The `config` commands: a file to begin with, and what is in force."""

import os
import sys
from pathlib import Path

from cyclopts import App

from poller.commands.ending import FAILED, CommandFailed, begin
from poller.commands.options import ConfigFile
from poller.printable import printable
from poller.settings.config import DEFAULT_FILE, chosen_file

configuration = App(name="config", help="Write a configuration to begin with; show what counts.")


@configuration.command
def init(path: Path = DEFAULT_FILE, /) -> None:
    """Write a configuration with every key, its default and what it means.

    Args:
        path: where to; nothing is overwritten
    """
    from poller.commands.configuration import template  # noqa: PLC0415  keeps `--help` quick

    text = template()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise CommandFailed(
            FAILED, [f"{path.absolute()}: it exists, and stays as it is; name another file"]
        ) from None
    sys.stdout.write(f"{printable(path.absolute())}\n")
    usual = "" if path == DEFAULT_FILE else f" --config {printable(path)}"
    sys.stderr.write(f"poller: now edit it, then: poller check{usual}\n")


@configuration.command
def show(*, config: ConfigFile = None) -> None:
    """Print every key that is in force, its value without secrets, and where it was written.

    Args:
        config: TOML file
    """
    from poller.commands.configuration import print_configuration  # noqa: PLC0415

    settings = begin(config)
    print_configuration(settings, config, os.environ, chosen_file(config, os.environ))
