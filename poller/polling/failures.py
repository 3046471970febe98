"""Whose trouble a look without a usable answer is: the symbol's, or that of the OpenD it asked.

An OpenD that answers nobody is one trouble, and not one for each of thousands of symbols; what
fails once and not again is none. Nor does a connection that breaks tell anything of those
who were asked meanwhile, unless it breaks with one of them again and again, and answers the others.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from poller.errors import GatewayError, Silent
from poller.model import Code, market_of
from poller.telemetry.observe import Observe, Recovered, Trouble

if TYPE_CHECKING:
    from poller.markets import Market

IN_A_ROW: Final = 3
"""Looks without a usable answer after which it is the gateway's trouble."""

_MANY: Final = 4 * IN_A_ROW
"""Such looks of one market after which it is, though nobody asked it for another one meanwhile."""

LOSSES: Final = 4
"""Connections in a row that broke while a symbol was asked, after which it is the symbol's trouble.

With three, a link that breaks with every fifth request had one symbol in twenty blamed for it.
"""


class Loss(Enum):
    """What it tells of a symbol that a connection broke while it was asked."""

    NOTHING = auto()  # it may be asked again at once, as all others who were asked meanwhile
    SUSPECT = auto()  # it happened again, but may be the gateway's trouble
    LIKELY = auto()  # and again, with others answered between them: it had better wait
    OWN = auto()  # so many times in a row, and others were answered between them


class FailureTracker:
    """Tells each trouble once, under the name of who has it."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._in_a_row: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._failed: dict[tuple[str, Code], int] = {}
        self._lost: dict[Code, tuple[int, Counter[str]]] = {}  # losses; the answers at the last
        self._told: set[str] = set()
        self._markets: defaultdict[str, set[Market]] = defaultdict(set)  # asked at any time
        self._failing: defaultdict[str, set[Market]] = defaultdict(set)  # since the last answer

    def asked(self, gateway: str, code: Code) -> None:
        """Take note that a symbol is asked: its market may be answered where another one is not."""
        self._markets[gateway].add(market_of(code))

    def failed(self, gateway: str, code: Code, problem: GatewayError) -> None:
        """Take note of a look without a usable answer.

        Silence is told by who watches the connection. It is the symbol's trouble when it fails
        again though others were answered in between.
        """
        if not isinstance(problem, Silent):
            self.unbroken(code)
        self._in_a_row[gateway] += 1
        answers = self._answers[gateway]
        self._failing[gateway].add(market_of(code))
        if self._fails_all(gateway):
            if gateway not in self._told and not isinstance(problem, Silent):
                self._told.add(gateway)
                text = f"{IN_A_ROW} looks in a row without a usable answer, the last: {problem}"
                self._observe(Trouble(_subject(gateway), text))
        elif self._failed.setdefault((gateway, code), answers) < answers:
            self._observe(Trouble(code, str(problem)))

    def _fails_all(self, gateway: str) -> bool:
        """Tell whether nobody is answered; of several markets one alone may be in trouble."""
        looks = self._in_a_row[gateway]
        every = self._failing[gateway] >= self._markets[gateway]
        return looks >= _MANY or (looks >= IN_A_ROW and every)

    def lost(self, code: Code, gateways: Iterable[str]) -> Loss:
        """Take note that a connection broke while a symbol was asked; `gateways`: its account's.

        It counts if any of them has answered others since the last time: an OpenD that is down, or
        breaks with everybody, tells nothing. Any, as who answers is seldom whose connection broke.
        """
        losses, before = self._lost.get(code, (0, Counter[str]()))
        counts = not losses or any(self._answers[name] > before[name] for name in gateways)
        self._lost[code] = losses + counts, self._answers.copy()
        if not losses:
            return Loss.NOTHING
        if losses + counts >= LOSSES:
            return Loss.OWN
        return Loss.LIKELY if counts and losses + counts == LOSSES - 1 else Loss.SUSPECT

    def unbroken(self, code: Code) -> None:
        """Take note that a connection has survived a request, or that a symbol is watched no more.

        Its next loss is the first one.
        """
        self._lost.pop(code, None)

    def withdraw(self, codes: Iterable[Code]) -> None:
        """Take back what was told of these symbols: it was not their trouble."""
        for code in codes:
            self._observe(Recovered(code))
            for gateway in self._answers.keys() | self._in_a_row.keys():
                self._failed.pop((gateway, code), None)

    def answered(self, gateway: str, code: Code) -> None:
        """Take note of a usable answer."""
        self.unbroken(code)
        self._in_a_row[gateway] = 0
        self._answers[gateway] += 1
        self._failing[gateway].clear()
        self._failed.pop((gateway, code), None)
        self._told.discard(gateway)
        self._observe(Recovered(_subject(gateway)))
        self._observe(Recovered(code))


def _subject(gateway: str) -> str:
    return f"answers of OpenD {gateway}"
