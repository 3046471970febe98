"""How much one endpoint may be given now: connections, rate and circuit breaker. Pure.

Seconds on any clock that only goes forward. One pace belongs to one endpoint in one process.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Final

WINDOW: Final = 300.0
"""Seconds of attempts the breaker looks at."""

FEWEST: Final = 10
SHARE: Final = 0.7
"""It opens when this share of at least `FEWEST` attempts failed."""

OPEN_FOR: Final = 30.0
"""Seconds it stays open; then one attempt decides."""

BURST: Final = 30
"""Deliveries that may leave at once: as many requests as OpenD answers at once, by its budget."""

BURST_SPAN: Final = 30.0
"""Seconds of its rate that a burst uses up at the most: with a low rate it is smaller."""

AHEAD: Final = 0.5
MOST_AHEAD: Final = 500
"""As many lanes are claimed ahead as deliveries ended within so many seconds, at most so many."""


@dataclass(slots=True)
class Breaker:
    """Open: send nothing. Half-open: one attempt, whose outcome opens or closes it."""

    attempts: deque[tuple[float, bool]] = field(default_factory=deque)
    failures: int = 0
    opened_at: float | None = None
    probing: bool = False

    def opens_at(self) -> float | None:
        """Return when an attempt may be made again; None: it is closed."""
        return None if self.opened_at is None else self.opened_at + OPEN_FOR

    def record(self, now: float, *, good: bool) -> None:
        """Take note of an attempt that ended."""
        if self.opened_at is not None:
            if good:
                self.opened_at, self.failures = None, 0
                self.attempts.clear()
            elif self.probing:
                self.opened_at = now
            self.probing = False
            return
        self.attempts.append((now, good))
        self.failures += not good
        while self.attempts[0][0] <= now - WINDOW:
            self.failures -= not self.attempts.popleft()[1]
        if len(self.attempts) >= FEWEST and self.failures >= SHARE * len(self.attempts):
            self.opened_at = now


class Pace:
    """At most `connections` at once, and on average at most `rate` a second.

    A token bucket: after a rest `BURST` deliveries may start at once; with a rate below one a
    second only as many as it allows in `BURST_SPAN`, but as many as there are connections.
    """

    def __init__(self, *, connections: int, rate: float) -> None:
        """`rate`: deliveries a second, above 0."""
        self._connections = connections
        self._rate = rate
        self._burst = float(max(connections, 1, min(BURST, rate * BURST_SPAN)))
        self._allowance = self._burst
        self._at: float | None = None
        self.breaker = Breaker()

    def room(self, now: float, in_flight: int) -> int:
        """Return how many deliveries may start now, on top of those in flight."""
        self._refill(now)
        opens_at = self.breaker.opens_at()
        if opens_at is not None:
            return int(now >= opens_at and in_flight == 0)
        return max(0, min(self._connections - in_flight, int(self._allowance)))

    def pause(self, now: float) -> float:
        """Return seconds until there is room again; 0: only an ending delivery makes room."""
        opens_at = self.breaker.opens_at()
        if opens_at is not None:
            return max(opens_at - now, 0)
        self._refill(now)
        return max((1 - self._allowance) / self._rate, 0)

    def wanted(self, now: float, in_flight: int) -> int:
        """Return how many lanes to have claimed: for what may start now, and for what follows soon.

        Of an endpoint that is slow nothing is claimed ahead: another process may be free to send.
        """
        room = self.room(now, in_flight)
        if self.breaker.opened_at is not None:
            return room
        recent = takewhile(lambda ended: ended[0] > now - AHEAD, reversed(self.breaker.attempts))
        return room + sum(1 for _ in islice(recent, MOST_AHEAD))

    def started(self) -> None:
        """Take note of a delivery that starts."""
        self._allowance -= 1
        self.breaker.probing = self.breaker.opened_at is not None

    def _refill(self, now: float) -> None:
        passed = 0.0 if self._at is None else max(now - self._at, 0)
        self._at = now
        self._allowance = min(self._burst, self._allowance + passed * self._rate)
