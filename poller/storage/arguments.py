"""What the scripts are given, laid out as they read it. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from poller.storage.store import HeldWrite, Write


def arguments_of(
    writes: Sequence[Write],
    entries: Sequence[Mapping[str, str]],
    held: Sequence[HeldWrite],
    quarantined: Sequence[Mapping[str, str]],
) -> Iterator[str | int]:
    """Lay a commit's days and entries out as commit.lua reads them."""
    yield len(writes)
    for write in writes:
        yield from (write.day, write.expected, write.text)
        yield "" if write.revision is None else write.revision
    yield len(held)
    for each in held:
        yield from (each.day, each.expected, each.text)
    yield from _table(entries)
    yield from _table(quarantined)


def _table(entries: Sequence[Mapping[str, str]]) -> Iterator[str | int]:
    """Yield a head with the names, then the values of each entry."""
    names = tuple(entries[0]) if entries else ()
    yield len(entries)
    yield len(names)
    yield from names
    for entry in entries:
        yield from (entry[name] for name in names)


def notice_arguments(fields: Mapping[str, str]) -> Iterator[str]:
    """Lay a notice out as announce.lua reads it: its id, when it was observed, all its fields."""
    yield from (fields["id"], fields["observed_at"])
    for name, text in fields.items():
        yield from (name, text)
