"""The clock on the wall: read by drivers, who hand the time to what decides."""

from datetime import UTC, datetime


def wall_clock() -> datetime:
    """Return the current instant, aware."""
    return datetime.now(UTC)
