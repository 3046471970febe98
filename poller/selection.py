"""Which events an endpoint gets."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Selection:
    """`events`: reported, revised, backfilled. `codes`: shell patterns, one of which matches."""

    events: frozenset[str] = frozenset({"reported", "revised"})
    codes: tuple[str, ...] = ("*",)
    filter: str | None = None

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Return whether the flat fields of a stream entry are wanted."""
        kind = fields["type"].rpartition(".")[2]
        return kind in self.events and any(fnmatchcase(fields["code"], p) for p in self.codes)
