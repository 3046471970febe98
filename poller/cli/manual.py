"""`poller manual`: the man page, made from the commands' own help."""

import sys
from collections.abc import Iterator
from datetime import date, datetime
from inspect import cleandoc
from pathlib import Path
from typing import Any, Final, get_args

from cyclopts import App
from cyclopts.argument import Argument

from poller import __version__
from poller.cli.main import cli

_KINDS: Final = {Path: "FILE", int: "N", float: "N", date: "DAY", datetime: "TIME"}
"""What the help calls the value of an option, by its type."""

_HEAD: Final = """\
.TH POLLER 1 "" "short-interest-poller {version}" "User Commands"
.SH NAME
poller \\- publish newly reported short interest from Futu OpenD
.SH SYNOPSIS
.B poller
.I COMMAND
.RI [ OPTION ...]
.SH DESCRIPTION
{help}.PP
Results are on stdout, the log is on stderr.
.SH OPTIONS
.TP
.BI \\-\\-config " FILE"
The configuration, for every command that reads one.
.TP
.B \\-\\-help
What a command does, and its options.
.TP
.B \\-\\-version
The version.
.SH COMMANDS
"""

_TAIL: Final = """\
.SH EXIT STATUS
.TP
0
Done.
.TP
1
Failed; a line on stderr says why.
.TP
2
Wrong usage, or a configuration that cannot be used.
.SH ENVIRONMENT
.TP
.B POLLER_CONFIG
The configuration, where
.B \\-\\-config
is not given.
.TP
.BI POLLER_ SECTION __ KEY
Overrides a key of the configuration, such as
.B POLLER_REDIS__URL
for
.BR redis.url .
.SH FILES
.TP
.I config/poller.toml
The configuration, where nothing else names one;
.B poller config init
writes it with a comment for each key.
.TP
.I /var/lib/poller
The state of a service that
.B poller service install
installed.
.SH SEE ALSO
.BR redis\\-cli (1),
.BR systemctl (1)
"""


def manual() -> None:
    """Print the man page, in the form that man reads."""
    sys.stdout.write(manual_text())


def manual_text() -> str:
    """Return the man page of all commands."""
    commands = "".join(line for app, words in _commands(cli) for line in _section(app, words))
    return _HEAD.format(version=_plain(__version__), help=_text(cli.help)) + commands + _TAIL


def _commands(app: App, *above: str) -> Iterator[tuple[App, tuple[str, ...]]]:
    """Yield each command with the words that call it, and no group of commands."""
    for name in app:
        if name.startswith("-"):
            continue
        words = (*above, name)
        below = list(_commands(app[name], *words))
        yield from below or [(app[name], words)]


def _section(app: App, words: tuple[str, ...]) -> Iterator[str]:
    arguments = [
        argument
        for argument in app.assemble_argument_collection(
            default_parameter=cli.default_parameter, parse_docstring=True
        )
        if argument.names not in {("*",), ("--config",)}
    ]
    places = [each for each in arguments if not each.names[0].startswith("-")]
    options = [each for each in arguments if each not in places]
    shown = [_place(each) for each in places] + (["[OPTION...]"] if options else [])
    yield f".SS poller {_plain(' '.join((*words, *shown)))}\n"
    yield _text(cleandoc(app.help).partition("\nArgs:\n")[0])  # which follow, each by itself
    for place in places:
        yield f".TP\n.I {_plain(_name(place))}\n{_text(_explained(place))}"
    for option in options:
        names = ", ".join(option.names)
        yield f".TP\n\\fB{_plain(names)}\\fR{_value(option)}\n{_text(_explained(option))}"


def _name(place: Argument) -> str:
    """Return the name of a positional argument, in the singular."""
    name: str = place.names[0]
    return name.removesuffix("S") if _is_many(place) else name


def _place(place: Argument) -> str:
    """Return a positional argument as a usage line shows it."""
    name = f"{_name(place)}..." if _is_many(place) else _name(place)
    return name if place.required else f"[{name}]"


def _is_many(place: Argument) -> bool:
    _, is_many = place.token_count()
    return bool(is_many)


def _value(option: Argument) -> str:
    """Return what follows an option, nothing for a switch."""
    if option.hint is bool:
        return ""
    kinds = {option.hint, *get_args(option.hint)}
    (word,) = [name for kind, name in _KINDS.items() if kind in kinds][:1] or ("TEXT",)
    return f" \\fI{_plain('|'.join(option.get_choices() or (word,)))}\\fR"


def _explained(argument: Argument) -> str:
    default: Any = argument.field_info.default
    told = argument.parameter.help or ""
    is_told = isinstance(default, int | float | str) and not isinstance(default, bool) and default
    return f"{told} (default: {default})".strip() if is_told else told


def _text(text: str) -> str:
    """Return paragraphs as the man page has them, with a line break at the end."""
    return "\n.PP\n".join(_plain(each) for each in cleandoc(text).strip().split("\n\n")) + "\n"


def _plain(text: str) -> str:
    """Escape what the language of man pages would take for its own."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(
        f"\\&{line}" if line.startswith((".", "'")) else line for line in escaped.splitlines()
    )
