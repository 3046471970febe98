"""How much may be sent to one endpoint now: connections, rate and circuit breaker. Pure.

Times are seconds of a monotonic clock. Each endpoint has its own pace in each process.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Final

WINDOW: Final = 300.0
"""The breaker considers the attempts of the last so many seconds."""

MIN_ATTEMPTS: Final = 10
FAILURE_SHARE: Final = 0.7
"""The breaker opens when this share of at least `MIN_ATTEMPTS` attempts failed."""

OPEN_FOR: Final = 30.0
"""Seconds the breaker stays open; then one attempt decides."""

BURST: Final = 30
"""Deliveries that may start at once: as many as OpenD's budget allows requests at once."""

BURST_SPAN: Final = 30.0
"""A burst is at most what the rate allows in so many seconds, so a low rate makes it smaller."""

PREFETCH_SPAN: Final = 0.5
MOST_PREFETCHED: Final = 500
"""As many lanes are prefetched as deliveries ended in the last `PREFETCH_SPAN` seconds, at most
`MOST_PREFETCHED`."""


@dataclass(slots=True)
class Breaker:
    """A circuit breaker. Open: nothing is sent. Half-open: one attempt opens or closes it."""

    attempts: deque[tuple[float, bool]] = field(default_factory=deque)
    failures: int = 0
    opened_at: float | None = None
    probing: bool = False

    def opens_at(self) -> float | None:
        """Return when the next attempt may be made; None: the breaker is closed."""
        return None if self.opened_at is None else self.opened_at + OPEN_FOR

    def record(self, now: float, *, good: bool) -> None:
        """Record an attempt that ended; `good`: it succeeded."""
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
        most = FAILURE_SHARE * len(self.attempts)
        if len(self.attempts) >= MIN_ATTEMPTS and self.failures >= most:
            self.opened_at = now


class Pace:
    """At most `connections` at once, and on average at most `rate` a second.

    A token bucket: after a rest `BURST` deliveries may start at once; with a rate below one a
    second only as many as it allows in `BURST_SPAN`, but at least as many as there are connections.
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
        """Return seconds until there is room again; 0: as soon as a delivery ends."""
        opens_at = self.breaker.opens_at()
        if opens_at is not None:
            return max(opens_at - now, 0)
        self._refill(now)
        return max((1 - self._allowance) / self._rate, 0)

    def wanted(self, now: float, in_flight: int) -> int:
        """Return how many lanes to hold claims of: those that may start now, and prefetched ones.

        For a slow endpoint nothing is prefetched: another process may be free to send.
        """
        room = self.room(now, in_flight)
        if self.breaker.opened_at is not None:
            return room
        start = now - PREFETCH_SPAN
        recent = takewhile(lambda attempt: attempt[0] > start, reversed(self.breaker.attempts))
        return room + sum(1 for _ in islice(recent, MOST_PREFETCHED))

    def started(self) -> None:
        """Record that a delivery starts."""
        self._allowance -= 1
        self.breaker.probing = self.breaker.opened_at is not None

    def _refill(self, now: float) -> None:
        passed = 0.0 if self._at is None else max(now - self._at, 0)
        self._at = now
        self._allowance = min(self._burst, self._allowance + passed * self._rate)
