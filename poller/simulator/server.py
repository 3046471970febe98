"""An OpenD on a loopback port: the wire protocol over a `World`.

The reply to a request is decided on arrival (the limit, the world at that instant) and sent later,
so that the replies on one connection may overtake each other.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import count
from secrets import randbelow, randbits
from types import TracebackType
from typing import Final, Self

from Crypto.PublicKey.RSA import RsaKey, import_key

from poller.markets import Market
from poller.model import RANK_PAGE
from poller.simulator import replies, securities
from poller.simulator.connection import ClientConnection, PlannedReply
from poller.simulator.ranking import Listed, Ranking
from poller.simulator.window import SlidingWindow
from poller.simulator.wire import Garbled, Header, Message, Proto, Session, parse
from poller.simulator.world import Refusal, ShortInterest, World, WorldAnswer

KEEP_ALIVE: Final = 10
"""Seconds between heartbeats, as the login reply requests."""
_AES_CBC: Final = 2
_TOO_FREQUENT: Final = "获取{what}频率太高，请求失败，每{period:g}秒最多{requests}次。"
_CALLS: Final = {
    Proto.SHORT_INTEREST: "空头持仓",
    Proto.GROUP: "自选股列表",
    Proto.GROUPS: "自选股分组",
    Proto.RANK: "卖空异动榜",
    Proto.STATIC_INFO: "股票静态信息",
    Proto.SNAPSHOT: "市场快照",
}
_GROUP_REQUESTS: Final = 10
_RANK_REQUESTS: Final = 60
_STATIC_INFO_REQUESTS: Final = 10
_SNAPSHOT_REQUESTS: Final = 60
_ANSWERS: Final[Mapping[Proto, Callable[[World, Message, datetime], Message]]] = {
    Proto.GROUPS: lambda world, asked, _: replies.groups(world.groups, asked.groupType),
    Proto.GROUP: lambda world, asked, _: replies.group(world.groups, asked.groupName),
    Proto.STATIC_INFO: securities.static_info,
    Proto.SNAPSHOT: securities.snapshot,
}
"""The calls that are answered at once, from the world alone."""
_FIRST_USER: Final = 10_000_000


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Simulator:
    """One OpenD. `async with Simulator(world) as simulator:` serves on `simulator.port`.

    `world` and `login` may be replaced at any time; without `login` it has a user of its own. At
    most `requests` for short interest are answered in any `period` seconds. `now`: returns the
    world's time (aware). `rsa_private_key`: PEM; clients must have it, too, and the SDK supports
    1024 bits only.
    """

    def __init__(
        self,
        world: World,
        *,
        requests: int = 30,
        period: float = 30.0,
        now: Callable[[], datetime] = _utc_now,
        rsa_private_key: str | bytes | None = None,
        login: replies.Login | None = None,
    ) -> None:
        self.world = world
        self.login = login or replies.Login(_FIRST_USER + randbelow(_FIRST_USER))
        self.port = 0
        self.windows = {
            Proto.SHORT_INTEREST: SlidingWindow(requests, period),
            Proto.GROUP: SlidingWindow(_GROUP_REQUESTS),
            Proto.GROUPS: SlidingWindow(_GROUP_REQUESTS),
            Proto.RANK: SlidingWindow(_RANK_REQUESTS, period),
            Proto.STATIC_INFO: SlidingWindow(_STATIC_INFO_REQUESTS),
            Proto.SNAPSHOT: SlidingWindow(_SNAPSHOT_REQUESTS),
        }
        self._ranking = Ranking(world)
        self._now = now
        self._rsa: RsaKey | None = import_key(rsa_private_key) if rsa_private_key else None
        self._server: asyncio.Server | None = None
        self._numbers = count(1)
        self._open: dict[asyncio.Task[None], ClientConnection] = {}
        self._failures: list[Exception] = []

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

    async def close(self) -> None:
        """Stop listening and disconnect; raises ExceptionGroup for failures inside."""
        if self._server is None:
            return
        server, self._server = self._server, None
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

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = ClientConnection(next(self._numbers), reader, writer, Session(self._rsa))
        name = f"simulator connection {connection.number}"
        task = asyncio.get_running_loop().create_task(self._converse(connection), name=name)
        self._open[task] = connection
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._open[task]
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._failures.append(error)

    async def _converse(self, connection: ClientConnection) -> None:
        """Serve one client until it leaves, fails or is cut off; drops its pending replies."""
        try:
            async with asyncio.TaskGroup() as answering:
                while True:
                    header, body = await connection.receive()
                    plan = self._arrive(connection, header, body)
                    name = f"reply {header.serial} of connection {connection.number}"
                    answering.create_task(connection.send(header, plan), name=name)
        except* (asyncio.IncompleteReadError, OSError, Garbled):
            pass  # a client may vanish or send nonsense: that only ends its connection
        finally:
            await connection.close()

    def _arrive(self, connection: ClientConnection, header: Header, body: bytes) -> PlannedReply:
        """Decide on one request."""
        if not connection.logged_in and header.proto != Proto.INIT_CONNECT:
            msg = "a request before the login"
            raise Garbled(msg)
        if header.proto not in set(Proto):
            return PlannedReply(replies.refusal(header.proto, "不支持的协议"))
        proto = Proto(header.proto)
        return self._decide(connection, proto, parse(proto, body).c2s)

    def _decide(self, connection: ClientConnection, proto: Proto, asked: Message) -> PlannedReply:
        if not self._admits(proto):
            return PlannedReply(self._too_frequent(proto))
        return PlannedReply(*self._reply(connection, proto, asked))

    def _admits(self, proto: Proto) -> bool:
        """Count a request that arrives now; returns whether it is within its limit."""
        window = self.windows.get(proto)
        return window is None or window.admit(time.monotonic())

    def _too_frequent(self, proto: Proto) -> Message:
        window = self.windows[proto]
        text = _TOO_FREQUENT.format(
            what=_CALLS[proto], period=window.period, requests=window.requests
        )
        return replies.refusal(proto, text)

    def _reply(  # noqa: PLR0911  a return per call
        self, connection: ClientConnection, proto: Proto, asked: Message
    ) -> tuple[Message, float]:
        """Return the reply to an admitted request, and how many seconds it takes."""
        match proto:
            case Proto.INIT_CONNECT:
                return self._login(connection, asked), 0.0
            case Proto.KEEP_ALIVE:
                return replies.heartbeat(self._now()), 0.0
            case Proto.GLOBAL_STATE:
                return replies.global_state(self._now(), logged_in=True), 0.0
            case Proto.USER_INFO:
                return replies.user_info(self.login), 0.0
            case Proto.SHORT_INTEREST:
                return self._short_interest(asked)
            case Proto.RANK:
                return self._rank(asked), 0.0
            case _:
                return _ANSWERS[proto](self.world, asked, self._now()), 0.0

    def _login(self, connection: ClientConnection, asked: Message) -> Message:
        session = connection.session
        session.encrypted = self._rsa is not None and asked.packetEncAlgo == _AES_CBC
        connection.logged_in = True
        iv = session.iv if session.encrypted else None
        # unique, because the SDK keeps its AES keys by this number for the whole process
        user, number = self.login.user, randbits(62)
        return replies.login(user, number, session.key, iv, keep_alive=KEEP_ALIVE)

    def _short_interest(self, asked: Message) -> tuple[Message, float]:
        num = {"num": asked.num} if asked.HasField("num") else {}
        wanted = ShortInterest(replies.code_of(asked.security), asked.nextKey, **num)
        outcome, latency = self.world.answer(wanted, self._now())
        if isinstance(outcome, Refusal):
            reply = replies.refusal(Proto.SHORT_INTEREST, outcome.text)
        else:
            reply = self._page(outcome)
        return reply, latency.total_seconds()

    def _rank(self, asked: Message) -> Message:
        if asked.count > RANK_PAGE:
            return replies.refusal(Proto.RANK, f"count 参数超出范围（1~{RANK_PAGE}）")
        market = replies.market_of_number(asked.market)
        if market is None or not market.has_rank:
            return replies.refusal(Proto.RANK, "不支持的市场")
        whole = self._listed(market)
        return replies.rank(market, len(whole), whole[asked.offset : asked.offset + asked.count])

    def _listed(self, market: Market) -> Listed:
        if self._ranking.world is not self.world:
            self._ranking = Ranking(self.world)
        return self._ranking.at(market, self._now())

    def _page(self, answer: WorldAnswer) -> Message:
        return replies.short_interest(answer)
