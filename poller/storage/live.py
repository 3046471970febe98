"""The live watchlist as Redis holds it: marks of ours, and what somebody else put beside them."""

import re
import shlex
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from poller.errors import BadCode
from poller.model import Code, parse_code

MOST_FIELDS: Final = 250_000
"""Fields that are read: every code of both markets, added and removed, is a tenth of it."""

_BATCH: Final = 500  # fields of one answer: a field of 1 MB beside others delays nobody for long
_NAMED: Final = 3
_LONGEST: Final = 40  # characters that are shown of a foreign field
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True)
class LiveList:
    """What operators have said: code → watched or not, whatever the configuration says.

    `foreign`: what else stands there, in a sentence with the command that removes it; empty: none.
    """

    marks: Mapping[Code, bool] = field(default_factory=dict)
    foreign: str = ""


async def scan(redis: Any, key: str) -> LiveList:  # noqa: ANN401  redis-py types nothing
    """Read the hash field by field, `MOST_FIELDS` at the most; raises what `redis` raises."""
    texts: dict[str, str] = {}
    cursor = 0
    while True:
        cursor, batch = await redis.hscan(key, cursor, count=_BATCH)
        texts |= {name: text[:2] for name, text in batch.items()}
        if cursor == 0 or len(texts) >= MOST_FIELDS:
            return read_live(key, texts, cut=cursor != 0)


def read_live(key: str, texts: Mapping[str, str], *, cut: bool = False) -> LiveList:
    """Return the marks among these fields; `cut`: there are more. Never raises."""
    marks: dict[Code, bool] = {}
    foreign: list[str] = []
    for name, text in texts.items():
        try:
            code = parse_code(name)
        except BadCode:
            foreign.append(name)
            continue
        if text in {"0", "1"}:
            marks[code] = text == "1"
        else:
            foreign.append(name)
    problems = []
    if foreign:
        problems.append(_named(key, foreign))
    if cut:
        problems.append(f"{key} has more than {MOST_FIELDS:,} fields, and no more are read")
    return LiveList(marks, "; ".join(problems))


def version_of(text: str | None) -> int:
    """Return a number that changes with what the version key holds, be it no number."""
    if text is None:
        return 0
    return int(text) if _INTEGER.fullmatch(text) else zlib.crc32(text.encode(errors="replace"))


def _named(key: str, foreign: Iterable[str]) -> str:
    names = sorted(foreign)
    shown = ", ".join(_short(name) for name in names[:_NAMED])
    typed = [name for name in names if name.isprintable() and len(name) <= _LONGEST]
    command = shlex.join(["redis-cli", "HDEL", key, *typed[:_NAMED]])
    if not typed:
        command = f"{shlex.join(['redis-cli', 'HKEYS', key])} shows them"
    others = "" if len(names) <= _NAMED else f" and {len(names) - _NAMED:,} more"
    return (
        f"fields of {key} are not part of the list and are passed over: {shown}{others}; {command}"
    )


def _short(name: str) -> str:
    return repr(name if len(name) <= _LONGEST else name[:_LONGEST] + "…")
