"""A message for people: a title, sentences and tables, and its forms as text. Pure.

A chat service that has tables, lists or cards of its own makes them from the same parts.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

UNTITLED: Final = "News of short interest"
"""The title of a message without one, where a service requires a title.

Like the other titles it contains `short`, which may be the keyword that a bot insists on.
"""

Line = tuple[str, ...]
"""The cells of a row: the symbol first."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with the same number of cells.

    Attributes:
        rows: At least one, unless all are counted in `more`.
        header: The names of the columns.
        more: How many further rows were left out.
    """

    rows: tuple[Line, ...]
    header: Line | None
    more: int

    @property
    def rest(self) -> str:
        """How many rows were left out, in words; "" if none was."""
        return f"… and {self.more:,} more" if self.more else ""


Part = str | Table
"""A sentence, or a table."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """A message for people. `title`: one line, or empty. `parts`: at least one."""

    title: str
    parts: tuple[Part, ...]

    @property
    def body(self) -> str:
        """Everything below the title, with the cells of a row side by side."""
        return body_of(self)

    @property
    def text(self) -> str:
        """Title and body together."""
        return text_of(self)


def text_of(message: ChatMessage, *, monospaced: bool = False) -> str:
    """Return title and body together; see `body_of`."""
    body = body_of(message, monospaced=monospaced)
    return f"{message.title}\n{body}" if message.title else body


def body_of(message: ChatMessage, *, monospaced: bool = False) -> str:
    """Return the body as text; `monospaced`: tables are aligned, in ``` blocks."""
    lines = list[str]()
    for part in message.parts:
        if isinstance(part, str):
            lines.append(part)
            continue
        if part.rows and monospaced:
            lines += ["```", *aligned(part), "```"]
        elif part.rows:
            lines += ("  ".join(line) for line in lines_of(part))
        lines += [part.rest] if part.rest else []
    return "\n".join(lines)


def aligned(table: Table) -> Iterator[str]:
    """Yield the lines of a table whose columns line up in a monospaced font."""
    lines = lines_of(table)
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        right = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([first + " " * (widths[0] - _width(first)), *right])


def itemized(table: Table) -> Iterator[str]:
    """Yield each row as an item of a Markdown list, the second cell in bold."""
    for row in table.rows:
        first, *others = row
        if table.header is not None:
            names = zip(table.header[2:], others[1:], strict=True)
            others = [*others[:1], *(f"{name} {cell}" for name, cell in names)]
        bold = [f"**{others[0]}**", *others[1:]] if others else []
        yield f"- {first}" + (f": {(', ' if table.header else ' ').join(bold)}" if bold else "")


def lines_of(table: Table) -> Sequence[Line]:
    """Return the header, if there is one, and the rows."""
    return table.rows if table.header is None else (table.header, *table.rows)


def _width(text: str) -> int:
    """Return how many columns a text takes in a monospaced font."""
    wide = sum(unicodedata.east_asian_width(character) in {"W", "F"} for character in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))
