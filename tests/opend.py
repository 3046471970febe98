"""The simulator with faults on demand, and with a memory of what it was asked."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from random import Random
from typing import Any, Final

from poller import simulator
from poller.markets import all_markets
from poller.simulator import END, Proto, SlidingWindow, World, WorldAnswer, replies
from poller.simulator.connection import ClientConnection, PlannedReply
from poller.simulator.wire import HEADER_SIZE, Header, Message, messages, parse

_NOTIFY: Final = 1003
"""What OpenD sends unasked."""


def gateway_event(kind: int, text: str) -> Message:
    """Return the notification of an event: 7 is a login elsewhere, 11 a phone code that is due."""
    reply = _notification(1)
    reply.s2c.event.eventType, reply.s2c.event.desc = kind, text
    return reply


def quote_rights(hk: int, us: int) -> Message:
    """Return the notification of an account's rights: 5 is none."""
    reply = _notification(4)
    rights = reply.s2c.qotRight
    rights.hkQotRight, rights.usQotRight, rights.cnQotRight = hk, us, 0
    return reply


def _notification(kind: int) -> Message:
    reply = messages("Notify_pb2").Response()
    reply.retType, reply.s2c.type = 0, kind
    return reply


class Verdict(StrEnum):
    """What became of a request."""

    ANSWERED = "answered"
    REFUSED = "refused"
    TOO_FREQUENT = "too frequent"
    SILENT = "silent"
    CUT = "cut"
    GARBLED = "garbled"


@dataclass(frozen=True, slots=True)
class Seen:
    """One request, as it arrived. `at`: the simulator's monotonic clock, seconds.

    `connection` counts from 1. `code`, `next_key`, `num` are of short interest; `code` is the
    group's name for its members and the offset for a rank, and `num` is None when the client left
    it out.
    """

    at: float
    connection: int
    proto: int
    code: str
    next_key: str
    num: int | None
    verdict: Verdict


class EndlessKeys(StrEnum):
    """Two ways of never saying that a page is the last."""

    REPEAT = "repeat"
    """The first page again and again, under the same key."""
    FRESH = "fresh"
    """The whole history again and again, under keys never used before."""


@dataclass(slots=True)
class Faults:
    """The faults of one simulator, each independent of the others; the next request sees them.

    Counters go down as they are used up, everything else stays until it is set back.

    On the connection:
        `drop_accepts`: hang up on every new connection. `kick()`: hang up on all present ones.
    On the login:
        `refuse_login`: the text of a refusal. `mute_login`: no reply to it.
        `logged_out`: the global state says that the quote server is not logged in.
        `program_status`: the number and the words it gives for the state of the program.
        `unserved`: the text per call that every request of it is refused with; "": no reply to it.
    On any reply:
        `delay`: seconds, `jitter`: up to so many more, uniformly. `cut`: send only so many bytes
        of the next reply, then hang up. `garbage_next`: so many bodies arrive scrambled.
    On queries (everything but the login):
        `silence`: no replies. `silence_next`: no reply to the next so many queries of short
        interest or of a watch group; heartbeats are still answered.
    On short interest:
        `too_frequent_next`: so many refusals for the rate. `errors`: the text per code.
        `no_right`: the text per market, which this OpenD's account has no right to.
        `mute_markets`: no replies to what is asked of these markets; all else is answered.
        `hangs_up`: the connection ends when one of these codes is asked for.
        `endless_keys`, `wrong_market` (rows come in the table of another market).
        `mutate`: per code, a function that alters the reply (the SDK's protobuf Response).
    On any call:
        `mute_calls`: no replies to these. `alter`: per call, a function that returns another
        reply, given the request's `c2s` and the reply.
    """

    drop_accepts: bool = False
    refuse_login: str | None = None
    mute_login: bool = False
    logged_out: bool = False
    program_status: tuple[int, str] | None = None
    unserved: dict[int, str] = field(default_factory=dict)
    delay: float = 0.0
    jitter: float = 0.0
    cut: int | None = None
    garbage_next: int = 0
    silence: bool = False
    silence_next: int = 0
    too_frequent_next: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    no_right: dict[str, str] = field(default_factory=dict)
    mute_markets: set[str] = field(default_factory=set)
    hangs_up: set[str] = field(default_factory=set)
    endless_keys: EndlessKeys | None = None
    wrong_market: bool = False
    mutate: dict[str, Callable[[Message], None]] = field(default_factory=dict)
    mute_calls: set[Proto] = field(default_factory=set)
    alter: dict[Proto, Callable[[Message, Message], Message]] = field(default_factory=dict)
    chance: Random = field(default_factory=lambda: Random(0))
    on_kick: list[Callable[[], None]] = field(default_factory=list)
    _keys: int = 0

    def kick(self) -> None:
        """Close all connections of every simulator that uses these faults, now."""
        for hang_up in self.on_kick:
            hang_up()

    def mutes(self, proto: int, code: str = "") -> bool:
        """Tell whether this request gets no reply, and count it; `code`: of short interest."""
        if proto == Proto.INIT_CONNECT:
            return self.mute_login
        if _market(code) in self.mute_markets or proto in self.mute_calls:
            return True
        if self.unserved.get(proto) == "":
            return True
        queries = (Proto.SHORT_INTEREST, Proto.GROUP, Proto.GROUPS)
        if self.silence or proto not in queries or not self.silence_next:
            return self.silence
        self.silence_next -= 1
        return True

    def refusal_of(self, code: str) -> str | None:
        """Return the text that a symbol is refused with; None: it is not."""
        return self.errors.get(code, self.no_right.get(_market(code)))

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


def _market(code: str) -> str:
    return code.partition(".")[0]


@dataclass(frozen=True, slots=True)
class _Judged(PlannedReply):
    """A plan and its verdict. `cut`: bytes to send, then hang up."""

    verdict: Verdict = Verdict.ANSWERED
    cut: int | None = None

    def write(self, packet: bytes, writer: asyncio.StreamWriter) -> None:
        """Write the packet as far as its faults let it through."""
        if self.verdict is Verdict.GARBLED:
            packet = packet[:HEADER_SIZE] + bytes(byte ^ 0xA5 for byte in packet[HEADER_SIZE:])
        writer.write(packet[: self.cut])
        if self.cut is not None:
            writer.close()


STILL: Final = datetime.now(UTC)
"""The instant at which the worlds stand still: no day is released in the middle of a test."""


class Simulator(simulator.Simulator):
    """An OpenD with `faults`. While it runs, `world` may be replaced and the faults be set.

    A `window` is shared with other simulators of the account. `clock` gives the time of arrivals in
    monotonic seconds. `seen` holds every request, or the last `remember`.
    """

    def __init__(  # noqa: PLR0913  each is one independent property of the simulated gateway
        self,
        world: World,
        *,
        faults: Faults | None = None,
        requests: int = 30,
        period: float = 30.0,
        window: SlidingWindow | None = None,
        now: Callable[[], datetime] = lambda: STILL,
        clock: Callable[[], float] = time.monotonic,
        rsa_private_key: str | bytes | None = None,
        login: replies.Login | None = None,
        remember: int | None = None,
    ) -> None:
        super().__init__(
            world,
            requests=requests,
            period=period,
            now=now,
            rsa_private_key=rsa_private_key,
            login=login,
        )
        self.faults = faults if faults is not None else Faults()
        self.seen: list[Seen] = []
        if window is not None:
            self.windows[Proto.SHORT_INTEREST] = window
        self._clock, self._remember = clock, remember
        self._at = 0.0
        self._arrivals: Counter[int] = Counter()
        self._arrived = asyncio.Event()

    def notify(self, notification: Message) -> None:
        """Send this to every client that is logged in, unasked."""
        for connection in self._open.values():
            if connection.logged_in:
                body = notification.SerializeToString()
                connection.writer.write(connection.session.seal(_NOTIFY, 0, body))

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen, and let the faults hang up."""
        await super().start(host, port)
        self.faults.on_kick.append(self.kick)

    async def close(self) -> None:
        """Stop; raise what went wrong inside, such as a `mutate` that did."""
        self.faults.on_kick = [one for one in self.faults.on_kick if one != self.kick]
        await super().close()

    def kick(self) -> None:
        """Hang up on every present connection, as an OpenD that restarts does."""
        for connection in self._open.values():
            connection.writer.close()

    def most_in_window(self) -> int:
        """Return the most requests for short interest that any closed period held.

        Refused and unanswered ones are counted, and those of every simulator on a shared window.
        """
        return self.windows[Proto.SHORT_INTEREST].most

    async def until_seen(self, requests: int, proto: Proto = Proto.SHORT_INTEREST) -> None:
        """Wait until so many requests of this call have arrived since the simulator was made."""
        while self._arrivals[proto] < requests:
            await self._arrived.wait()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.faults.drop_accepts:
            writer.close()
        else:
            super()._accept(reader, writer)

    def _arrive(self, connection: ClientConnection, header: Header, body: bytes) -> PlannedReply:
        """Decide on one request and record it."""
        self._at = self._clock()
        plan = super()._arrive(connection, header, body)
        code, next_key, num = "", "", None
        asked: Any = parse(Proto(header.proto), body).c2s if header.proto in set(Proto) else None
        if header.proto == Proto.SHORT_INTEREST:
            code, next_key = replies.code_of(asked.security), asked.nextKey
            num = asked.num if asked.HasField("num") else None
        elif header.proto == Proto.GROUP:
            code = asked.groupName
        elif header.proto == Proto.RANK:
            code = str(asked.offset)
        verdict = plan.verdict if isinstance(plan, _Judged) else Verdict.REFUSED
        self.seen.append(
            Seen(self._at, connection.number, header.proto, code, next_key, num, verdict)
        )
        if self._remember is not None:
            del self.seen[: -self._remember or None]
        self._arrivals[header.proto] += 1
        self._arrived.set()
        self._arrived = asyncio.Event()
        return plan

    def _admits(self, proto: Proto) -> bool:
        window = self.windows.get(proto)
        return window is None or window.admit(self._at)

    def _decide(self, connection: ClientConnection, proto: Proto, asked: Message) -> PlannedReply:
        """Apply limit, faults and world, in this order: a muted request was spent, too."""
        faults, admitted = self.faults, self._admits(proto)
        code = replies.code_of(asked.security) if proto is Proto.SHORT_INTEREST else ""
        if faults.mutes(proto, code):
            return _Judged(None, verdict=Verdict.SILENT)
        if code in faults.hangs_up:
            return _Judged(replies.refusal(proto, ""), verdict=Verdict.CUT, cut=0)
        hold = faults.hold()
        if proto is Proto.SHORT_INTEREST:
            admitted = not faults.refuses_for_rate() and admitted
        if not admitted:
            plan = _Judged(self._too_frequent(proto), hold, Verdict.TOO_FREQUENT)
        else:
            reply, latency = self._reply(connection, proto, asked)
            verdict = Verdict.REFUSED if reply.retType else Verdict.ANSWERED
            plan = _Judged(reply, hold + latency, verdict)
        if (cut := faults.takes_cut()) is not None:
            return replace(plan, verdict=Verdict.CUT, cut=cut)
        return replace(plan, verdict=Verdict.GARBLED) if faults.scrambles() else plan

    def _reply(
        self, connection: ClientConnection, proto: Proto, asked: Message
    ) -> tuple[Message, float]:
        faults = self.faults
        if (text := faults.unserved.get(proto)) is not None:
            return replies.refusal(proto, text), 0.0
        if proto is Proto.GLOBAL_STATE:
            logged_in, status = not faults.logged_out, faults.program_status
            return replies.global_state(self._now(), logged_in=logged_in, status=status), 0.0
        if proto is Proto.INIT_CONNECT and faults.refuse_login is not None:
            return replies.refusal(proto, faults.refuse_login), 0.0
        if proto is Proto.SNAPSHOT:
            for security in asked.securityList:
                text = faults.no_right.get(_market(replies.code_of(security)))
                if text is not None:
                    return replies.refusal(proto, text), 0.0
        reply, latency = super()._reply(connection, proto, asked)
        alter = faults.alter.get(proto)
        return (reply if alter is None else alter(asked, reply)), latency

    def _short_interest(self, asked: Message) -> tuple[Message, float]:
        faults = self.faults
        code = replies.code_of(asked.security)
        if (text := faults.refusal_of(code)) is not None:
            return replies.refusal(Proto.SHORT_INTEREST, text), 0.0
        asked.nextKey = faults.key_from(asked.nextKey)
        reply, latency = super()._short_interest(asked)
        if not reply.retType and (mutate := faults.mutate.get(code)) is not None:
            mutate(reply)
        return reply, latency

    def _page(self, answer: WorldAnswer) -> Message:
        if self.faults.wrong_market:
            answer = _elsewhere(answer)
        return super()._page(replace(answer, next_key=self.faults.key_for(answer.next_key)))


def _elsewhere(answer: WorldAnswer) -> WorldAnswer:
    """Return the same figures as the rows of a market that stands in another table."""
    mine = answer.market
    other = next(each for each in all_markets() if each.table != mine.table)
    rows = (
        other.simulation.record(
            row.timestamp,
            row.timestamp_str,
            mine.simulation.figures(row)._replace(volume=None, cover=None),
        )
        for row in answer.records
    )
    return replace(answer, market=other, records=tuple(rows))
