"""The limit OpenD enforces: so many requests in any period. Pure: the instant is an argument."""

from collections import deque


class Window:
    """A sliding log of one account's requests; refused ones count too.

    `period`: seconds. The (n+1)-th request must come more than a period after the first, so
    that no closed window of the period holds more than `requests` that were admitted.
    """

    def __init__(self, requests: int = 30, period: float = 30.0) -> None:
        self.requests, self.period = requests, period
        self.most = 0
        self._recent: deque[float] = deque()

    def admit(self, at: float) -> bool:
        """Count a request that arrives at `at` (seconds, never decreasing); tell if it may pass."""
        recent = self._recent
        while recent and at - recent[0] > self.period:
            recent.popleft()
        recent.append(at)
        self.most = max(self.most, len(recent))
        return len(recent) <= self.requests
