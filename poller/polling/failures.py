"""Whose trouble a look without a usable answer is: the symbol's, or that of the OpenD it asked.

An OpenD that answers nobody is one trouble, and not one for each of thousands of symbols; what
fails once and not again is none.
"""

from collections import Counter
from typing import Final

from poller.errors import GatewayError, Silent
from poller.model import Code
from poller.telemetry.observe import Observe, Recovered, Trouble

IN_A_ROW: Final = 3
"""Looks without a usable answer after which it is the gateway's trouble."""


class FailureTracker:
    """Tells each trouble once, under the name of who has it."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._in_a_row: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._failed: dict[tuple[str, Code], int] = {}
        self._told: set[str] = set()

    def failed(self, gateway: str, code: Code, problem: GatewayError) -> None:
        """Take note of a look without a usable answer.

        Silence is told by who watches the connection. It is the symbol's trouble when it fails
        again though others were answered in between.
        """
        self._in_a_row[gateway] += 1
        answers = self._answers[gateway]
        if self._in_a_row[gateway] >= IN_A_ROW:
            if gateway not in self._told and not isinstance(problem, Silent):
                self._told.add(gateway)
                text = f"{IN_A_ROW} looks in a row without a usable answer, the last: {problem}"
                self._observe(Trouble(_subject(gateway), text))
        elif self._failed.setdefault((gateway, code), answers) < answers:
            self._observe(Trouble(code, str(problem)))

    def answered(self, gateway: str, code: Code) -> None:
        """Take note of a usable answer."""
        self._in_a_row[gateway] = 0
        self._answers[gateway] += 1
        self._failed.pop((gateway, code), None)
        self._told.discard(gateway)
        self._observe(Recovered(_subject(gateway)))
        self._observe(Recovered(code))


def _subject(gateway: str) -> str:
    return f"answers of OpenD {gateway}"
