"""Whose trouble a look without a usable answer is."""

import pytest

from poller.errors import GatewayError, Malformed, Silent, Unavailable
from poller.model import Code
from poller.polling.failures import IN_A_ROW, FailureTracker
from poller.telemetry.observe import Fact, Recovered, Trouble

A, B, C, D = (Code(f"HK.0000{n}") for n in range(1, 5))
GATEWAY = "answers of OpenD one"

BAD, MUTE = Unavailable("not logged in"), Silent("PacketErr.Timeout")


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        ([(A, BAD)], []),  # once and not again
        ([(A, BAD), (B, None), (A, BAD)], [(A, "not logged in")]),
        ([(A, BAD), (B, None), (A, BAD), (B, None), (A, BAD)], [(A, "not logged in")] * 2),
        ([(A, BAD), (B, BAD), (A, BAD)], [(GATEWAY, "not logged in")]),
        ([(code, Malformed(f"{code}: odd")) for code in (A, B, C, D, A)], [(GATEWAY, f"{C}: odd")]),
        ([(A, BAD), (B, BAD), (C, None), (C, BAD), (D, BAD)], []),
        ([(A, MUTE)] * 5, []),  # who watches the connection tells of it
        ([(A, MUTE), (B, None), (A, MUTE)], [(A, "PacketErr.Timeout")]),
        ([(A, MUTE)] * 3 + [(A, BAD)], [(GATEWAY, "not logged in")]),
    ],
)
def test_whose_trouble_it_is(
    looks: list[tuple[Code, GatewayError | None]], told: list[tuple[str, str]]
) -> None:
    """A symbol's when it fails again while others do not, the gateway's when nobody is answered."""
    facts: list[Fact] = []
    tracker = FailureTracker(facts.append)
    for code, problem in looks:
        tracker.asked("one", code)
        if problem is None:
            tracker.answered("one", code)
        else:
            tracker.failed("one", code, problem)
    troubles = [fact for fact in facts if isinstance(fact, Trouble)]
    assert [trouble.subject for trouble in troubles] == [subject for subject, _ in told]
    for trouble, (_, reason) in zip(troubles, told, strict=True):
        assert reason in trouble.reason


def test_both_recover() -> None:
    """A usable answer ends the trouble of its symbol and of the gateway that gave it alone."""
    facts: list[Fact] = []
    tracker = FailureTracker(facts.append)
    tracker.asked("one", A)
    tracker.asked("two", B)
    for _ in range(4):
        tracker.failed("one", A, BAD)
        tracker.failed("two", B, BAD)
    facts.clear()
    tracker.answered("one", A)
    assert facts == [Recovered(GATEWAY), Recovered(A)]
    for _ in range(3):
        tracker.failed("one", A, BAD)
    assert [fact.subject for fact in facts[2:] if isinstance(fact, Trouble)] == [GATEWAY]


def test_one_market_of_several_is_not_the_gateway() -> None:
    """Where another market was answered and is not asked, it takes four times as many looks."""
    facts: list[Fact] = []
    complaints = FailureTracker(facts.append)
    complaints.asked("one", A)
    complaints.answered("one", A)
    facts.clear()
    looks = looks_of("US", 4 * IN_A_ROW)
    for code in looks:
        complaints.asked("one", code)
    for code in looks[:-1]:
        complaints.failed("one", code, BAD)
    assert not facts
    complaints.failed("one", looks[-1], BAD)
    assert [fact.subject for fact in facts if isinstance(fact, Trouble)] == [GATEWAY]


def test_a_market_whose_answer_is_under_way_is_not_failing() -> None:
    """Another market that refuses fast says nothing of it; when it fails as well, all do."""
    facts: list[Fact] = []
    tracker = FailureTracker(facts.append)
    tracker.asked("one", A)
    for code in looks_of("US", IN_A_ROW + 1):
        tracker.asked("one", code)
        tracker.failed("one", code, BAD)
    assert not facts
    tracker.failed("one", A, BAD)
    assert [fact.subject for fact in facts if isinstance(fact, Trouble)] == [GATEWAY]


def looks_of(market: str, count: int) -> list[Code]:
    """Return so many symbols of a market."""
    return [Code(f"{market}.{n}") for n in range(count)]


def test_every_market_is_the_gateway() -> None:
    """A look at the other one, which fails as well, tells whose trouble it is."""
    facts: list[Fact] = []
    complaints = FailureTracker(facts.append)
    for code in (Code("US.A"), Code("US.B"), A):
        complaints.asked("one", code)
    complaints.answered("one", A)
    for code in (Code("US.A"), Code("US.B"), A):
        complaints.failed("one", code, BAD)
    assert [fact.subject for fact in facts if isinstance(fact, Trouble)] == [GATEWAY]


def test_what_was_not_the_symbols_is_taken_back() -> None:
    """A symbol that failed beside others recovers, and fails anew only when it does so twice."""
    facts: list[Fact] = []
    complaints = FailureTracker(facts.append)
    for _ in range(2):
        complaints.failed("one", A, BAD)
        complaints.answered("one", B)
    complaints.withdraw([A])
    assert [f for f in facts if f in (Trouble(A, str(BAD)), Recovered(A))] == [
        Trouble(A, str(BAD)),
        Recovered(A),
    ]
    facts.clear()
    complaints.failed("one", A, BAD)
    assert not facts
