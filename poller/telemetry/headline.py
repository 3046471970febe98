"""What the log says of a report. Pure."""

from typing import Final

from poller.model import titled
from poller.schedule.notice import Completed, Mover, Notice

_NAMED: Final = 3
"""Symbols named in a line about a report; the others are counted."""


def headline(notice: Notice) -> tuple[str, dict[str, object]]:
    """Return the line of a notice, and its details."""
    report = f"{notice.market}: the report of {notice.day} is"
    if isinstance(notice, Completed):
        fields: dict[str, object] = {"found": notice.found, "missing": len(notice.missing)}
        if notice.missing:
            named = notice.missing[:_NAMED]
            fields["missing_codes"] = ", ".join(
                titled(each, notice.names.get(each)) for each in named
            )
        if notice.biggest:
            fields["biggest"] = ", ".join(map(_moved, notice.biggest[:_NAMED]))
        return f"{report} complete", fields
    return f"{report} out", {"code": notice.code} | ({"name": notice.name} if notice.name else {})


def _moved(mover: Mover) -> str:
    percent = "" if mover.percent is None else f" ({mover.percent:+.2f} %)"
    return f"{titled(mover.code, mover.name)} {mover.change:+,}{percent}"
