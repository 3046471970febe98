"""The command line: its commands, and the messages for arguments that are refused.

Logs go to stderr, results to stdout; the exit code is 0 for success, 1 for failure, 2 for wrong
usage. A command's module is imported when the command is used.
"""

import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final, NoReturn

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    UnknownCommandError,
    UnusedCliTokensError,
)

from poller import __version__
from poller.cli.runner import WRONG, CommandFailed, conclude
from poller.frozen import frozen_import


def _shown_default(default: object) -> str | None:
    """Show an option's default in the help, unless it means "nothing"."""
    return str(default) if default not in (None, False, ()) else None


cli = App(
    name="poller",
    help="Watches short interest through Futu OpenD and publishes what is newly reported.",
    version=__version__,
    help_format="plaintext",
    usage="Usage: poller COMMAND [OPTIONS]",
    default_parameter=Parameter(negative=(), show_default=_shown_default),
)
cli["--help"].group = cli["--version"].group = Group("Options")

_COMMANDS: Final = {
    "serving:run": (
        "Run the service: poll the watchlist, publish what is new, deliver it to the webhooks."
    ),
    "serving:poll": "Run the polling role alone, for a process manager.",
    "serving:deliver": "Run the delivering role alone; any number of them share the work.",
    "serving:web": ("Run the status page alone, on this or another machine; it reads Redis only."),
    "check:check": "Validate the configuration whole, then try OpenD, Redis and each webhook.",
    "tail:tail": "Print the last events, then follow the stream.",
    "history:history": (
        "Print what is known of symbols, newest first.\n\n"
        'A change is that since the day known before; "-" where either figure is below\n'
        "the reporting threshold, or not known."
    ),
    "release:release": (
        "Print one report of a market: who moved most, how many show it, and who is missing."
    ),
    "export:export": (
        "Write the histories of many symbols to one file, newest day of each first.\n\n"
        "The file takes its name when it is whole. What cannot be read is left out and\n"
        "named, and the exit code is 1."
    ),
    "explain:explain": "Explain why a symbol has published nothing.",
    "gaps:gaps": "Print reporting days that the calendar expects and history lacks.",
    "backfill:backfill": "Page older history in, within the shared budget.",
    "simulate:simulate": (
        "Simulate weeks of polling in seconds, and print how late reports would be published."
    ),
    "demo:demo": "Show the service at work for half a minute, against a simulated OpenD.",
    "health:health": (
        "Ask the page whether the service is ready; the exit code is 0 or, with reasons, 1.\n\n"
        "It asks where web.host and web.port say, with web.token, and waits for 5 s at\n"
        "the most: made for a container's HEALTHCHECK."
    ),
    "mcp:mcp": (
        "Serve the Model Context Protocol on stdin and stdout: history, reports, gaps, "
        "explanations."
    ),
    "watch:watch": "Show or change the live watchlist; takes effect in a running service.",
    "quarantine:quarantine": (
        "Show figures held as impossible or implausible, and decide on them."
    ),
    "webhookcli:webhook": "Show the endpoints and their state; test, replay, enable, forget.",
    "configuration:config": "Write a configuration to begin with; show the effective settings.",
    "install:service": "Install the poller as a systemd service.",
    "completion:completion": "Print what makes a shell complete the commands and their options.",
    "manual:manual": "Print the man page, in the form that man reads.",
}
"""Each command's module and function, and its text in `poller --help`, which imports none."""

for place, text in _COMMANDS.items():
    cli.command(f"poller.cli.{place}", help=text)


_FORMS: Final[Mapping[object, str]] = {
    date: " Write it like 2026-04-30.",
    datetime: " Write it like 2026-04-30, or 2026-04-30T09:30:00+08:00.",
    int: " Give a whole number.",
    float: " Give a number.",
}


def refusal(problem: CycloptsError) -> CommandFailed:
    """Return the error for arguments that cannot be parsed, with a hint."""
    return CommandFailed(WRONG, [f"{problem}{_hint(problem)}"])


def _hint(problem: CycloptsError) -> str:
    """Return a sentence that says what to write instead, or ""."""
    match problem:
        case CoercionError(msg=None, target_type=kind):
            return _FORMS.get(kind, "")
        case MissingArgumentError(command_chain=words):
            return f" See: poller {' '.join(words or ())} --help"
        case UnknownCommandError(unused_tokens=[token, *_]) if token.startswith("-"):
            return " Options follow the command: poller check --config FILE"
        case UnknownCommandError():
            return " All: poller --help"
        case UnusedCliTokensError():
            return " Nothing of that kind belongs there; see --help of the command"
    return ""


def _config_last(arguments: Sequence[str]) -> list[str]:
    """Move a `--config FILE` before the command to the end, where cyclopts expects it."""
    match arguments:
        case ["--config", file, command, *rest]:
            return [command, *rest, "--config", file]
        case [option, command, *rest] if option.startswith("--config="):
            return [command, *rest, option]
        case _:
            return list(arguments)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command, and exit the process."""
    given = _config_last(sys.argv[1:] if arguments is None else arguments)

    def whole() -> None:
        try:
            with frozen_import():  # of the command's own module
                command, bound, _ = cli.parse_args(given, exit_on_error=False, print_error=False)
        except CycloptsError as problem:
            raise refusal(problem) from None
        command(*bound.args, **bound.kwargs)

    conclude(whole)


if __name__ == "__main__":
    main()
