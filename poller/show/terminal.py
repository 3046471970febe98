"""Writing to a terminal: lines that fit it, progress bars. Elsewhere a line is never wrapped."""

import re
import shutil
import sys
from collections.abc import Iterable
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from poller.printable import printable, printable_json

LINE_LIMIT: Final = 2_000
"""Most characters of a line outside tables: enough to quote an answer in it."""

USUAL_WIDTH: Final = 80
"""Columns of a table of figures where stdout is no terminal."""

_PART: Final = re.compile(
    r" *\(?(?:"
    r"poller(?: (?:config|quarantine|service|watch|webhook))? [a-z]+"  # a command
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}(?::[0-9]{2})?(?: UTC)?"
    r"|[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}"
    r"|[+-]?[0-9][0-9.,]* [^ ]"
    r")\S*"
    r"| *\S+"
)
"""What is never broken: a word, an instant, a figure with its unit or noun, a command."""


def room() -> int | None:
    """Return the columns of the terminal that stdout is; None if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def console() -> Console:
    """Return a console on stdout; it uses colours on a terminal only."""
    return Console(highlight=False, soft_wrap=True)


def errors() -> Console:
    """Return a console on stderr, for progress bars."""
    return Console(stderr=True)


def say(text: str, *, indent: int = 0) -> None:
    """Print one line to stdout; untrusted parts are made printable.

    On a terminal it is wrapped between values; `indent`: columns before each further line.
    """
    line = fitted(parts_of(printable(text, LINE_LIMIT)), indent=indent)
    sys.stdout.write(f"{line.plain}\n")


def say_json(document: str) -> None:
    """Print a JSON document to stdout, unchanged in value and safe on a terminal."""
    sys.stdout.write(f"{printable_json(document)}\n")


def parts_of(text: str, style: str = "") -> list[Text]:
    """Return the parts of a sentence that are never broken, each with the spaces before it."""
    return [Text(part, style) for part in _PART.findall(text)]


def fitted(parts: Iterable[Text], *, indent: int) -> Text:
    """Join the parts of a line; on a terminal, a part that does not fit begins a further line.

    A part begins with what separates it from the one before; where it begins a line, its spaces
    are left out. One that is wider than the terminal is not broken.
    """
    columns = room()
    line, used = Text(), 0
    for part in parts:
        if columns is not None and used > indent and used + part.cell_len > columns:
            line.append(f"\n{' ' * indent}")
            part = part[len(part.plain) - len(part.plain.lstrip(" ")) :]  # noqa: PLW2901
            used = indent
        line.append_text(part)
        used += part.cell_len
    return line


_WIDE, _BAR = 100, 40
"""Columns from which on a bar has its usual width, and that; it gets what is left before."""


def progress_bar(counted: str = "") -> Progress:
    """Return a bar on stderr, shown on a terminal only; `counted`: the unit to count, if any."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(None if shutil.get_terminal_size().columns < _WIDE else _BAR),
        *((MofNCompleteColumn(), TextColumn(counted)) if counted else (TaskProgressColumn(),)),
        TimeElapsedColumn(),
        disable=not sys.stderr.isatty(),
        console=errors(),
    )
