"""How much leaves at once, and how much a second."""

import math

import pytest

from poller.delivery.pace import BURST, Pace


def sent(pace: Pace, at: float, most: int) -> int:
    """Return how many deliveries start at one moment when each ends at once, of at most `most`."""
    for count in range(most):
        if not pace.room(at, 0):
            return count
        pace.started()
    return most


def test_a_budgets_burst_leaves_at_once() -> None:
    """Thirty answers at once are thirty POSTs at once; what follows keeps to the rate."""
    pace = Pace(connections=8, rate=20)
    assert sent(pace, 0, 99) == BURST == 30
    assert pace.pause(0) == pytest.approx(1 / 20)
    assert sent(pace, 1, 99) == 20
    assert sent(pace, 1000, 99) == BURST


def test_connections_bound_what_is_under_way() -> None:
    """However deep the bucket is."""
    pace = Pace(connections=8, rate=20)
    assert pace.room(0, 0) == 8
    assert pace.room(0, 7) == 1
    assert pace.room(0, 8) == 0


@pytest.mark.parametrize(
    ("rate", "connections", "burst"),
    [(1e4, 8, 30), (1e4, 100, 100), (1, 1, 30), (0.5, 1, 15), (1 / 3600, 1, 1), (1e-9, 4, 4)],
)
def test_a_low_rate_has_a_small_burst(rate: float, connections: int, burst: int) -> None:
    """One delivery an hour is no thirty at first."""
    assert sent(Pace(connections=connections, rate=rate), 0, 999) == burst


@pytest.mark.parametrize("rate", [5e-324, 1e-300, 1e-9, 1e4])
def test_any_rate_is_a_number_of_seconds(rate: float) -> None:
    """The smallest one makes a long pause, which whoever waits bounds; it is never not a number."""
    pace = Pace(connections=1, rate=rate)
    for now in (0.0, 1.0, 1e9):
        sent(pace, now, 99)
        assert pace.pause(now) > 0
        assert not math.isnan(pace.pause(now))
