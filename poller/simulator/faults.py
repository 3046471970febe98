"""What goes wrong on demand: set the fields while the simulator runs; the next request sees them.

Counters go down as they are used up, everything else stays until it is set back.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from poller.simulator.wire import Message, Proto
from poller.simulator.world import END


class EndlessKeys(StrEnum):
    """Two ways of never saying that a page is the last."""

    REPEAT = "repeat"
    """The first page again and again, under the same key."""
    FRESH = "fresh"
    """The whole history again and again, under keys never used before."""


@dataclass(slots=True)
class Faults:
    """The faults of one simulator, each independent of the others.

    On the connection:
        `drop_accepts`: hang up on every new connection. `kick()`: hang up on all present ones.
    On the login:
        `refuse_login`: the text of a refusal. `mute_login`: no reply to it.
        `logged_out`: the global state says that the quote server is not logged in.
    On any reply:
        `delay`: seconds, `jitter`: up to so many more, uniformly. `cut`: send only so many bytes
        of the next reply, then hang up. `garbage_next`: so many bodies arrive scrambled.
    On queries (everything but the login):
        `silence`: no replies. `silence_next`: no reply to the next so many queries of short
        interest or of a watch group; heartbeats are still answered.
    On short interest:
        `too_frequent_next`: so many refusals for the rate. `errors`: the text per code.
        `endless_keys`, `wrong_market` (rows come in the table of another market).
        `mutate`: per code, a function that alters the reply (the SDK's protobuf Response).
    """

    drop_accepts: bool = False
    refuse_login: str | None = None
    mute_login: bool = False
    logged_out: bool = False
    delay: float = 0.0
    jitter: float = 0.0
    cut: int | None = None
    garbage_next: int = 0
    silence: bool = False
    silence_next: int = 0
    too_frequent_next: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    endless_keys: EndlessKeys | None = None
    wrong_market: bool = False
    mutate: dict[str, Callable[[Message], None]] = field(default_factory=dict)
    chance: Random = field(default_factory=lambda: Random(0))
    on_kick: list[Callable[[], None]] = field(default_factory=list)
    _keys: int = 0

    def kick(self) -> None:
        """Close all connections of every simulator that uses these faults, now."""
        for hang_up in self.on_kick:
            hang_up()

    def mutes(self, proto: int) -> bool:
        """Tell whether this request gets no reply, and count it."""
        if proto == Proto.INIT_CONNECT:
            return self.mute_login
        queries = (Proto.SHORT_INTEREST, Proto.GROUP, Proto.GROUPS)
        if self.silence or proto not in queries or not self.silence_next:
            return self.silence
        self.silence_next -= 1
        return True

    def refuses_for_rate(self) -> bool:
        """Tell whether this query is one of the refused ones, and count it."""
        if self.too_frequent_next:
            self.too_frequent_next -= 1
            return True
        return False

    def scrambles(self) -> bool:
        """Tell whether this reply is one of the scrambled ones, and count it."""
        if self.garbage_next:
            self.garbage_next -= 1
            return True
        return False

    def takes_cut(self) -> int | None:
        """Return where to cut this reply, once."""
        cut, self.cut = self.cut, None
        return cut

    def hold(self) -> float:
        """Return the seconds to keep this reply back."""
        return self.delay + self.jitter * self.chance.random()

    def key_from(self, key: str) -> str:
        """Return the world's own key behind one that was given out."""
        return key.partition("#")[0]

    def key_for(self, key: str) -> str:
        """Return the key to give out for the world's own."""
        match self.endless_keys:
            case None:
                return key
            case EndlessKeys.REPEAT:
                return "#again"
            case EndlessKeys.FRESH:
                self._keys += 1
                return f"{'' if key == END else key}#{self._keys}"
