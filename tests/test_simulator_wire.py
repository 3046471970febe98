"""The simulator as the unmodified SDK meets it over TCP."""

import asyncio
import importlib
import math
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from Crypto.PublicKey import RSA

from poller.markets.hk import HkRecord
from poller.markets.us import UNITED_STATES
from poller.model import Code
from poller.simulator import END, TENCENT, TENCENT_ROWS, Proto, World
from poller.simulator.replies import NO_RIGHT, Login
from tests.machine import at_most, scaled
from tests.opend import EndlessKeys, Faults, Simulator, Verdict

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
APPLE = Code("US.AAPL")
WORLD = World(
    named=(APPLE,),
    refused={Code("HK.00001"): "停牌"},
    groups={"我的": ("HK.00700", "SH.600519", "US.AAPL"), "空": ()},
)
TOO_FREQUENT = "获取空头持仓频率太高，请求失败，每30秒最多30次。"


@pytest.fixture(scope="module")
def futu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The SDK, imported where it can install no signal handler and with a home for its log."""
    with pytest.MonkeyPatch.context() as environment, ThreadPoolExecutor(1) as elsewhere:
        environment.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        sdk = elsewhere.submit(importlib.import_module, "futu").result()
        sdk.SysConfig.set_all_thread_daemon(True)
        sdk.SysConfig.enable_console_log(enable=False)
        yield sdk


class Sdk:
    """One context of the SDK; each call runs in a thread, as it blocks."""

    def __init__(self, context: Any) -> None:  # noqa: ANN401  the SDK carries no types
        self.context = context

    async def page(
        self, code: str, next_key: str | None = None, num: int | None = None
    ) -> tuple[int, Any, Any]:
        """Call get_short_interest and return its three values."""
        answer: tuple[int, Any, Any] = await asyncio.to_thread(
            self.context.get_short_interest, code, next_key, num
        )
        return answer

    async def state(self) -> tuple[int, Any]:
        """Call get_global_state, which waits for READY."""
        answer: tuple[int, Any] = await asyncio.to_thread(self.context.get_global_state)
        return answer

    async def ready(self) -> None:
        """Wait for READY where the SDK does not: encrypted queries before it fail at once."""
        async with at_most(5):
            while (await self.state())[1] == "invalid connid":
                pass


Connect = Callable[..., AbstractAsyncContextManager[Sdk]]


@pytest.fixture
def connect(futu: Any) -> Connect:  # noqa: ANN401  the SDK carries no types
    """A way to open a context on a simulator; a query waits `patience` seconds for READY."""

    @asynccontextmanager
    async def opened(simulator: Simulator, *, patience: float = scaled(5.0)) -> AsyncIterator[Sdk]:
        context = await asyncio.to_thread(
            futu.OpenQuoteContext, "127.0.0.1", simulator.port, is_async_connect=True
        )
        context.set_sync_query_connect_timeout(patience)
        try:
            yield Sdk(context)
        finally:
            await asyncio.to_thread(context.close)

    return opened


def tencent(frame: Any) -> tuple[HkRecord, ...]:  # noqa: ANN401  the SDK's DataFrame
    """Read the rows of a Hong Kong frame."""
    return tuple(HkRecord(**row) for row in frame.to_dict("records"))


async def test_the_sdk_gets_ready_and_reads_the_ten_rows(futu: Any, connect: Connect) -> None:  # noqa: ANN401  the SDK carries no types
    """HK.00700 arrives as on the vendor's page: values, column order, empty US frame, no more."""
    async with Simulator(WORLD) as simulator, connect(simulator) as sdk:
        ret, us_frame, hk_frame = await sdk.page("HK.00700")
        assert sdk.context.status == futu.common.constant.ContextStatus.READY
        assert ret == 0
        assert tencent(hk_frame) == TENCENT_ROWS
        shown = ["aggregated_short", "aggregated_short_ratio", "close_price", "last_close_price"]
        assert list(hk_frame.columns) == ["timestamp", "timestamp_str", *shown]
        assert hk_frame.attrs["next_key"] == END
        assert us_frame.empty


async def test_a_us_page_has_the_worlds_rows(connect: Connect) -> None:
    """US.AAPL arrives value for value, ten rows unless asked otherwise."""
    async with Simulator(WORLD, now=lambda: NOW) as simulator, connect(simulator) as sdk:
        ret, us_frame, hk_frame = await sdk.page(APPLE)
        assert (ret, len(us_frame), len(hk_frame)) == (0, 10, 0)
        for row, record in zip(
            us_frame.to_dict("records"), WORLD.records(APPLE, NOW), strict=False
        ):
            assert row == {name: getattr(record, name) for name in UNITED_STATES.columns}


async def test_paging_ends_with_minus_one(connect: Connect) -> None:
    """Pages of four are four, four and two rows, in all the ten; the simulator saw the keys."""
    async with Simulator(WORLD) as simulator, connect(simulator) as sdk:
        rows: tuple[HkRecord, ...] = ()
        sizes, keys = [], [""]
        while keys[-1] != END:
            ret, _, frame = await sdk.page("HK.00700", keys[-1], 4)
            assert ret == 0
            rows += tencent(frame)
            sizes.append(len(frame))
            keys.append(frame.attrs["next_key"])
        assert (sizes, rows) == ([4, 4, 2], TENCENT_ROWS)
        pages = [seen for seen in simulator.seen if seen.proto == Proto.SHORT_INTEREST]
        assert [seen.next_key for seen in pages] == keys[:-1]
        assert {(seen.code, seen.num) for seen in pages} == {("HK.00700", 4)}


async def test_watch_groups(connect: Connect) -> None:
    """Groups are listed by name and hold codes of any market; an unknown one is refused."""
    async with Simulator(WORLD) as simulator, connect(simulator) as sdk:
        call = asyncio.to_thread
        ret, frame = await call(sdk.context.get_user_security_group)
        assert (ret, list(frame["group_name"])) == (0, ["我的", "空"])
        ret, frame = await call(sdk.context.get_user_security, "我的")
        assert (ret, list(frame["code"])) == (0, ["HK.00700", "SH.600519", "US.AAPL"])
        ret, frame = await call(sdk.context.get_user_security, "空")
        assert (ret, len(frame)) == (0, 0)
        assert await call(sdk.context.get_user_security, "none") == (-1, "未知分组 none")


@pytest.mark.parametrize("logged_out", [False, True])
async def test_global_state(connect: Connect, *, logged_out: bool) -> None:
    """The state has versions, the world's time, and whether the quote server is logged in."""
    faults = Faults(logged_out=logged_out)
    async with (
        Simulator(WORLD, faults=faults, now=lambda: NOW) as simulator,
        connect(simulator) as sdk,
    ):
        ret, state = await sdk.state()
        assert (ret, state["qot_logined"]) == (0, not logged_out)
        assert state["timestamp"] == str(int(NOW.timestamp()))


async def test_user_info(connect: Connect) -> None:
    """The user, also as the login named it, the right to each market, and what waits."""
    login = Login(77, {"hk": 3, "us": NO_RIGHT}, disclaimer=True, update=2)
    async with Simulator(WORLD, login=login) as simulator, connect(simulator) as sdk:
        ret, info = await asyncio.to_thread(sdk.context.get_user_info)
        assert (ret, info["user_id"], sdk.context.get_login_user_id()) == (0, 77, 77)
        assert (info["hk_qot_right"], info["us_qot_right"]) == ("LV2", "NO")
        assert (info["is_need_agree_disclaimer"], info["update_type"]) == (True, "FORCE")
        assert info["cn_qot_right"] == "N/A"
        simulator.login = Login(0, {})
        ret, info = await asyncio.to_thread(sdk.context.get_user_info)
        assert (ret, info["user_id"], info["hk_qot_right"]) == (0, "N/A", "N/A")


@pytest.fixture
def rsa_key(futu: Any, tmp_path: Path) -> Iterator[bytes]:  # noqa: ANN401  the SDK carries no types
    """A key both sides hold; the SDK's switch is for the whole process and is put back."""
    key = RSA.generate(1024).export_key()  # noqa: S505  the only size the SDK can use
    (tmp_path / "key.pem").write_bytes(key)
    futu.SysConfig.enable_proto_encrypt(is_encrypt=True)
    futu.SysConfig.set_init_rsa_file(str(tmp_path / "key.pem"))
    with warnings.catch_warnings():
        # the SDK leaves the file open, once, when it first reads the key
        warnings.simplefilter("ignore", ResourceWarning)
        futu.SysConfig.get_init_rsa_obj()
    yield key
    futu.SysConfig.enable_proto_encrypt(is_encrypt=False)
    futu.SysConfig.set_init_rsa_file("")


async def test_encryption(rsa_key: bytes, connect: Connect) -> None:
    """With one RSA key on both sides everything works as without, packet after packet."""
    async with Simulator(WORLD, rsa_private_key=rsa_key) as simulator, connect(simulator) as sdk:
        await sdk.ready()
        for _ in range(3):
            ret, _, frame = await sdk.page("HK.00700", num=50)
            assert (ret, tencent(frame)) == (0, TENCENT_ROWS)
        assert (await sdk.state())[0] == 0


async def test_two_encrypted_gateways_in_one_process(rsa_key: bytes, connect: Connect) -> None:
    """The SDK keeps keys by connection number for the process; two simulators do not clash."""
    async with (
        Simulator(WORLD, rsa_private_key=rsa_key) as left,
        Simulator(WORLD, rsa_private_key=rsa_key) as right,
        connect(left) as one,
        connect(right) as other,
    ):
        await one.ready()
        await other.ready()
        for sdk in (one, other, one):
            assert (await sdk.page("HK.00700"))[0] == 0


async def test_the_31st_request_is_refused(connect: Connect) -> None:
    """Thirty at once pass, one more is refused, and the simulator counts them all."""
    async with Simulator(WORLD) as simulator, connect(simulator) as sdk:
        assert (await sdk.state())[0] == 0
        answers = [await sdk.page("HK.00700", num=1) for _ in range(31)]
        assert [answer[0] for answer in answers] == [0] * 30 + [-1]
        assert answers[-1] == (-1, TOO_FREQUENT, None)
        assert simulator.most_in_window() == 31
        assert simulator.seen[-1].verdict is Verdict.TOO_FREQUENT


async def test_too_frequent_on_demand(connect: Connect) -> None:
    """The next n requests are refused for the rate without a reason."""
    faults = Faults(too_frequent_next=2)
    async with Simulator(WORLD, faults=faults) as simulator, connect(simulator) as sdk:
        answers = [await sdk.page("HK.00700") for _ in range(3)]
        assert [answer[0] for answer in answers] == [-1, -1, 0]
        assert answers[0][1] == TOO_FREQUENT


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("HK.00001", "停牌"),
        ("HK.99999", "未知股票 HK.99999"),
        ("SH.600519", "不支持的市场 SH.600519，仅支持港股和美股"),
        ("US.AAPL", "网络中断"),
        ("HK.00700", ""),
    ],
)
async def test_errors_per_code(connect: Connect, code: str, text: str) -> None:
    """The world's refusals and the faults' errors reach the caller word for word."""
    faults = Faults(errors={"US.AAPL": "网络中断", "HK.00700": ""})
    async with Simulator(WORLD, faults=faults) as simulator, connect(simulator) as sdk:
        assert await sdk.page(code) == (-1, text, None)


async def test_pipelined_calls_do_not_wait_for_each_other(connect: Connect) -> None:
    """While one call waits for ever, others on the same context are answered."""
    async with Simulator(WORLD) as simulator, connect(simulator) as sdk:
        assert (await sdk.state())[0] == 0
        simulator.faults.delay = math.inf
        held = asyncio.create_task(sdk.page("HK.00700"))
        await simulator.until_seen(1)
        simulator.faults.delay = 0.0
        answers = await asyncio.gather(*(sdk.page("HK.00700") for _ in range(4)))
        assert [ret for ret, _, _ in answers] == [0] * 4
        assert not held.done()
        simulator.kick()
        assert await held == (-1, "Disconnect", None)


async def test_silence_then_kick(connect: Connect) -> None:
    """A muted query hangs, the state is still answered, and a kick ends it with 'Disconnect'."""
    async with Simulator(WORLD) as simulator, connect(simulator) as sdk:
        simulator.faults.silence_next = 1
        held = asyncio.create_task(sdk.page("HK.00700"))
        await simulator.until_seen(1)
        assert (await sdk.state())[0] == 0
        assert not held.done()
        simulator.faults.kick()
        assert await held == (-1, "Disconnect", None)


async def test_cut_answers(connect: Connect) -> None:
    """An answer cut in the middle is a lost connection to the SDK."""
    async with Simulator(WORLD) as simulator, connect(simulator) as sdk:
        assert (await sdk.state())[0] == 0
        simulator.faults.cut = 60
        assert await sdk.page("HK.00700") == (-1, "Disconnect", None)


async def test_garbage(connect: Connect) -> None:
    """A scrambled answer is an error about the checksum; the next one is good."""
    async with Simulator(WORLD) as simulator, connect(simulator) as sdk:
        assert (await sdk.state())[0] == 0
        simulator.faults.garbage_next = 1
        ret, text, _ = await sdk.page("HK.00700")
        assert ret == -1
        assert "check sha error" in text
        assert (await sdk.page("HK.00700"))[0] == 0


@pytest.mark.parametrize(
    ("faults", "verdict"),
    [
        (Faults(refuse_login="未登录"), Verdict.REFUSED),
        (Faults(mute_login=True), Verdict.SILENT),
        (Faults(cut=20), Verdict.CUT),
    ],
)
async def test_logins_that_fail(
    futu: Any,  # noqa: ANN401  the SDK carries no types
    connect: Connect,
    faults: Faults,
    verdict: Verdict,
) -> None:
    """A refused, unanswered or cut login never becomes READY, and no query passes."""
    async with (
        Simulator(WORLD, faults=faults) as simulator,
        connect(simulator, patience=0.1) as sdk,
    ):
        await simulator.until_seen(1, Proto.INIT_CONNECT)
        assert await sdk.page("HK.00700") == (-1, "Connect timeout", None)
        assert sdk.context.status != futu.common.constant.ContextStatus.READY
        assert [seen.verdict for seen in simulator.seen] == [verdict]


async def test_dropped_accepts(connect: Connect) -> None:
    """A port that hangs up at once lets no query pass, and nothing is seen."""
    faults = Faults(drop_accepts=True)
    async with (
        Simulator(WORLD, faults=faults) as simulator,
        connect(simulator, patience=0.1) as sdk,
    ):
        assert await sdk.page("HK.00700") == (-1, "Connect timeout", None)
        assert simulator.seen == []


async def test_endless_keys_that_repeat(connect: Connect) -> None:
    """The first page comes again and again, under one key."""
    faults = Faults(endless_keys=EndlessKeys.REPEAT)
    async with Simulator(WORLD, faults=faults) as simulator, connect(simulator) as sdk:
        _, _, first = await sdk.page("HK.00700", None, 4)
        _, _, second = await sdk.page("HK.00700", first.attrs["next_key"], 4)
        assert first.attrs["next_key"] == second.attrs["next_key"] != END
        assert tencent(first) == tencent(second) == TENCENT_ROWS[:4]


async def test_endless_keys_that_are_fresh(connect: Connect) -> None:
    """The history comes round again under keys that never repeat."""
    faults = Faults(endless_keys=EndlessKeys.FRESH)
    async with Simulator(WORLD, faults=faults) as simulator, connect(simulator) as sdk:
        rows: tuple[HkRecord, ...] = ()
        key, keys = "", set()
        for _ in range(6):
            _, _, frame = await sdk.page("HK.00700", key, 4)
            key = frame.attrs["next_key"]
            keys.add(key)
            rows += tencent(frame)
        assert rows == TENCENT_ROWS * 2
        assert len(keys) == 6
        assert END not in keys


async def test_wrong_market(connect: Connect) -> None:
    """A Hong Kong code answered with US rows: same days and figures in the other frame."""
    faults = Faults(wrong_market=True)
    async with Simulator(WORLD, faults=faults) as simulator, connect(simulator) as sdk:
        ret, us_frame, hk_frame = await sdk.page("HK.00700")
        assert (ret, len(us_frame), len(hk_frame)) == (0, 10, 0)
        assert list(us_frame["shares_short"]) == [row.shares for row in TENCENT_ROWS]
        _, us_frame, hk_frame = await sdk.page("US.AAPL")
        assert (len(us_frame), len(hk_frame)) == (0, 10)


async def test_mutate_alters_the_reply_of_one_code(connect: Connect) -> None:
    """A hook may leave out fields, go beyond 63 bits, reorder, repeat, or reach into the future."""

    def spoil(reply: Any) -> None:  # noqa: ANN401  the SDK's message
        items = reply.s2c.hkItemList
        items[0].ClearField("closePrice")
        items[1].aggregatedShort = 2**64 - 1
        items.add().CopyFrom(items[2])
        items.add(timestampStr="2099-12-31")

    faults = Faults(mutate={TENCENT: spoil})
    async with Simulator(WORLD, faults=faults) as simulator, connect(simulator) as sdk:
        _, _, frame = await sdk.page("HK.00700")
        assert math.isnan(frame["close_price"][0])
        assert frame["aggregated_short"][1] >= 2**63
        assert frame["timestamp_str"][10] == frame["timestamp_str"][2]
        assert frame["timestamp_str"][11] == "2099-12-31"
        assert len((await sdk.page("US.AAPL"))[1]) == 10


async def test_a_record_without_figures_arrives_without_them(connect: Connect) -> None:
    """A None in the world's record is a field left out; the SDK makes it a column of None."""
    rows = tuple(
        HkRecord(None, row.timestamp_str, shares, None, 1.0, 1.0)
        for shares, row in enumerate(TENCENT_ROWS)
    )
    world = World(extra={TENCENT: rows})
    async with Simulator(world) as simulator, connect(simulator) as sdk:
        _, _, frame = await sdk.page("HK.00700")
        assert frame["timestamp"].isna().all()
        assert frame["aggregated_short_ratio"].isna().all()
        assert list(frame["aggregated_short"]) == list(range(len(TENCENT_ROWS)))
