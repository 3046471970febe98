"""An OpenD on a loopback port: the wire protocol over a `World`, with `Faults`.

What happens to a request is decided at its arrival (limit, faults, the world at that instant) and
carried out later, so that replies of one connection may overtake each other.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from secrets import randbits
from types import TracebackType
from typing import Final, Self

from Crypto.PublicKey.RSA import RsaKey, import_key

from poller.simulator import replies
from poller.simulator.connection import Connection, Plan, Verdict
from poller.simulator.faults import Faults
from poller.simulator.window import Window
from poller.simulator.wire import Garbled, Header, Message, Proto, Session, parse
from poller.simulator.world import Refusal, ShortInterest, World

KEEP_ALIVE: Final = 10
"""Seconds between heartbeats that the login asks for."""
_AES_CBC: Final = 2
_TOO_FREQUENT: Final = "获取{what}频率太高，请求失败，每{period:g}秒最多{requests}次。"
_CALLS: Final = {
    Proto.SHORT_INTEREST: "空头持仓",
    Proto.GROUP: "自选股列表",
    Proto.GROUPS: "自选股分组",
}
_GROUP_REQUESTS: Final = 10


@dataclass(frozen=True, slots=True)
class Seen:
    """One request, as it arrived. `at`: the simulator's monotonic clock, seconds.

    `connection` counts from 1. `code`, `next_key`, `num` are of short interest; `code` is the
    group's name for its members, and `num` is None when the client left it out.
    """

    at: float
    connection: int
    proto: int
    code: str
    next_key: str
    num: int | None
    verdict: Verdict


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Simulator:
    """One OpenD. `async with Simulator(world) as simulator:` serves on `simulator.port`.

    While it runs, `world` may be replaced and the fields of `faults` set. At most `requests` in
    any `period` seconds for short interest; a `window` given instead is shared with other
    simulators of the account. `now` gives the world's time (aware), `clock` the arrivals'
    (monotonic seconds). `rsa_private_key`: PEM; clients must then have it, too, and the SDK can
    use 1024 bits only. `seen` holds every request, or the last `remember`.
    """

    def __init__(  # noqa: PLR0913  each is one independent property of the simulated gateway
        self,
        world: World,
        *,
        faults: Faults | None = None,
        requests: int = 30,
        period: float = 30.0,
        window: Window | None = None,
        now: Callable[[], datetime] = _utc_now,
        clock: Callable[[], float] = time.monotonic,
        rsa_private_key: str | bytes | None = None,
        remember: int | None = None,
    ) -> None:
        self.world = world
        self.faults = faults if faults is not None else Faults()
        self.port = 0
        self.seen: list[Seen] = []
        self.window = window if window is not None else Window(requests, period)
        self._windows = {
            Proto.SHORT_INTEREST: self.window,
            Proto.GROUP: Window(_GROUP_REQUESTS),
            Proto.GROUPS: Window(_GROUP_REQUESTS),
        }
        self._now, self._clock, self._remember = now, clock, remember
        self._rsa: RsaKey | None = import_key(rsa_private_key) if rsa_private_key else None
        self._server: asyncio.Server | None = None
        self._numbers = count(1)
        self._open: dict[asyncio.Task[None], Connection] = {}
        self._failures: list[Exception] = []
        self._arrivals: Counter[int] = Counter()
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one. A closed simulator may be started again."""
        self._server = await asyncio.start_server(self._accept, host, port)
        self.port = self._server.sockets[0].getsockname()[1]
        self.faults.on_kick.append(self.kick)

    async def close(self) -> None:
        """Stop listening and hang up; raise what went wrong inside, such as a `mutate` that did."""
        if self._server is None:
            return
        server, self._server = self._server, None
        self.faults.on_kick = [one for one in self.faults.on_kick if one != self.kick]
        server.close()
        ending = list(self._open)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await server.wait_closed()
        if self._failures:
            failures, self._failures = self._failures, []
            msg = "the simulator failed while it served"
            raise ExceptionGroup(msg, failures)

    def kick(self) -> None:
        """Hang up on every present connection, as an OpenD that restarts does."""
        for connection in self._open.values():
            connection.writer.close()

    def most_in_window(self) -> int:
        """Return the most requests for short interest that any closed period held.

        Refused and unanswered ones are counted, and those of every simulator on a shared window.
        """
        return self.window.most

    async def until_seen(self, requests: int, proto: Proto = Proto.SHORT_INTEREST) -> None:
        """Wait until so many requests of this call have arrived since the simulator was made."""
        while self._arrivals[proto] < requests:
            await self._arrived.wait()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.faults.drop_accepts:
            writer.close()
            return
        connection = Connection(next(self._numbers), reader, writer, Session(self._rsa))
        name = f"simulator connection {connection.number}"
        task = asyncio.get_running_loop().create_task(self._converse(connection), name=name)
        self._open[task] = connection
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._open[task]
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._failures.append(error)

    async def _converse(self, connection: Connection) -> None:
        """Serve one client until it goes, errs or is cut off; what it still awaits is dropped."""
        try:
            async with asyncio.TaskGroup() as answering:
                while True:
                    header, body = await connection.receive()
                    plan = self._arrive(connection, header, body)
                    name = f"reply {header.serial} of connection {connection.number}"
                    answering.create_task(connection.send(header, plan), name=name)
        except* (asyncio.IncompleteReadError, OSError, Garbled):
            pass  # a client may vanish or talk nonsense: that ends its connection, nothing else
        finally:
            await connection.close()

    def _arrive(self, connection: Connection, header: Header, body: bytes) -> Plan:
        """Decide on one request and record it."""
        at = self._clock()
        if not connection.logged_in and header.proto != Proto.INIT_CONNECT:
            msg = "a request before the login"
            raise Garbled(msg)
        code, next_key, num = "", "", None
        if header.proto in set(Proto):
            proto = Proto(header.proto)
            asked = parse(proto, body).c2s
            if proto is Proto.SHORT_INTEREST:
                code, next_key = replies.code_of(asked.security), asked.nextKey
                num = asked.num if asked.HasField("num") else None
            elif proto is Proto.GROUP:
                code = asked.groupName
            plan = self._decide(connection, proto, asked, at)
        else:
            plan = Plan(Verdict.REFUSED, replies.refusal(header.proto, "不支持的协议"))
        self._record(Seen(at, connection.number, header.proto, code, next_key, num, plan.verdict))
        return plan

    def _record(self, seen: Seen) -> None:
        self.seen.append(seen)
        if self._remember is not None:
            del self.seen[: -self._remember or None]
        self._arrivals[seen.proto] += 1
        self._arrived.set()
        self._arrived = asyncio.Event()

    def _decide(self, connection: Connection, proto: Proto, asked: Message, at: float) -> Plan:
        """Apply limit, faults and world, in this order: a muted request was spent, too."""
        faults = self.faults
        window = self._windows.get(proto)
        admitted = window is None or window.admit(at)
        if faults.mutes(proto):
            return Plan(Verdict.SILENT)
        hold = faults.hold()
        if proto is Proto.SHORT_INTEREST:
            admitted = not faults.refuses_for_rate() and admitted
        if window is not None and not admitted:
            verdict = Verdict.TOO_FREQUENT
            text = _TOO_FREQUENT.format(
                what=_CALLS[proto], period=window.period, requests=window.requests
            )
            reply = replies.refusal(proto, text)
        else:
            reply, latency = self._reply(connection, proto, asked)
            verdict = Verdict.REFUSED if reply.retType else Verdict.ANSWERED
            hold += latency
        return self._spoiled(Plan(verdict, reply, hold))

    def _spoiled(self, plan: Plan) -> Plan:
        """Let the faults of transmission befall a reply."""
        if (cut := self.faults.takes_cut()) is not None:
            return Plan(Verdict.CUT, plan.reply, plan.hold, cut=cut)
        if self.faults.scrambles():
            return Plan(Verdict.GARBLED, plan.reply, plan.hold, scrambled=True)
        return plan

    def _reply(self, connection: Connection, proto: Proto, asked: Message) -> tuple[Message, float]:
        """Return the reply to an admitted request, and the seconds the world takes for it."""
        match proto:
            case Proto.INIT_CONNECT:
                return self._login(connection, asked), 0.0
            case Proto.KEEP_ALIVE:
                return replies.heartbeat(self._now()), 0.0
            case Proto.GLOBAL_STATE:
                logged_in = not self.faults.logged_out
                return replies.global_state(self._now(), logged_in=logged_in), 0.0
            case Proto.GROUPS:
                return replies.groups(self.world.groups, asked.groupType), 0.0
            case Proto.GROUP:
                return replies.group(self.world.groups, asked.groupName), 0.0
            case Proto.SHORT_INTEREST:
                return self._short_interest(asked)

    def _login(self, connection: Connection, asked: Message) -> Message:
        if self.faults.refuse_login is not None:
            return replies.refusal(Proto.INIT_CONNECT, self.faults.refuse_login)
        session = connection.session
        session.encrypted = self._rsa is not None and asked.packetEncAlgo == _AES_CBC
        connection.logged_in = True
        iv = session.iv if session.encrypted else None
        # the SDK keeps its AES keys by this number for the whole process: it must be unique there
        return replies.login(randbits(62), session.key, iv, keep_alive=KEEP_ALIVE)

    def _short_interest(self, asked: Message) -> tuple[Message, float]:
        faults, proto = self.faults, Proto.SHORT_INTEREST
        code = replies.code_of(asked.security)
        if (text := faults.errors.get(code)) is not None:
            return replies.refusal(proto, text), 0.0
        num = {"num": asked.num} if asked.HasField("num") else {}
        wanted = ShortInterest(code, faults.key_from(asked.nextKey), **num)
        outcome, latency = self.world.answer(wanted, self._now())
        if isinstance(outcome, Refusal):
            return replies.refusal(proto, outcome.text), latency.total_seconds()
        next_key = faults.key_for(outcome.next_key)
        reply = replies.short_interest(outcome, next_key, wrong_market=faults.wrong_market)
        if (mutate := faults.mutate.get(code)) is not None:
            mutate(reply)
        return reply, latency.total_seconds()
