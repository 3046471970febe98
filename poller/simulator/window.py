"""OpenD's rate limit. Pure: the time is an argument."""

from collections import deque


class SlidingWindow:
    """A sliding log of one account's requests, including refused ones.

    Request n+1 must come more than `period` (seconds) after the first, so that no closed interval
    of that length contains more than `requests` that were admitted.
    """

    def __init__(self, requests: int = 30, period: float = 30.0) -> None:
        self.requests, self.period = requests, period
        self.most = 0
        self._recent: deque[float] = deque()

    def admit(self, at: float) -> bool:
        """Count a request at `at` (seconds, never decreasing); returns whether it is admitted."""
        recent = self._recent
        while recent and at - recent[0] > self.period:
            recent.popleft()
        recent.append(at)
        self.most = max(self.most, len(recent))
        return len(recent) <= self.requests
