"""The HTTP client on real sockets: what is sent byte for byte, and what any answer comes to."""

import asyncio
import random
import re
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from poller.delivery.client import Answer, Client, reach, reason_of
from poller.delivery.destinations.webhook import SignedPost
from poller.delivery.endpoint import Endpoint
from poller.delivery.resolver import Resolver
from poller.delivery.retry import Delivered, Failed
from poller.delivery.selection import Selection
from poller.gateway.opend import Address, OpenD
from poller.gateway.sdk import Sdk
from tests.machine import at_most, scaled
from tests.nodes import free_port
from tests.receiver import OK, SECRET, RawReceiver, status
from tests.test_webhook import now

CLOSED = "it closed the connection without an answer"


def endpoint(url: str, **how: Any) -> Endpoint:  # noqa: ANN401
    """Return an endpoint at this URL."""
    return Endpoint("desk", url, (SECRET,), Selection(), **how)


TARGETS = [
    "/a?sp=%2Frun&sig=x%2Fy%3D",
    "/%7Euser/~user/%40/@/%41",
    "/a+b?c=a+b&d=%20&e=%2520&f",
    "/a//b/../c/./d/",
    "/a=b%3D;c,d!$'()*",
    "/%e4%B8%ad?q=%C3%a9",
    '/a"b<>{}|^`\\c',
    "/?x",
    "/a?b?c=/d",
    "/%zz%",
    "/:80/x:y",
]


@pytest.mark.parametrize("target", TARGETS)
async def test_the_target_is_sent_byte_for_byte(target: str) -> None:
    """Nothing is decoded, encoded, or tidied up: a signed query stays what was signed."""
    async with RawReceiver(lambda *_: (OK, None)).running() as receiver:
        client = Client(endpoint(f"http://127.0.0.1:{receiver.port}{target}"))
        answer = await client.post(b"{}", {})
        await client.close()
    assert isinstance(answer, Answer)
    assert receiver.heads[0].split(b"\r\n")[0] == f"POST {target} HTTP/1.1".encode()


@pytest.mark.parametrize(("tail", "sent"), [("", "/"), ("?a=b%2F", "/?a=b%2F")])
async def test_a_url_without_a_path_asks_for_the_root(tail: str, sent: str) -> None:
    """HTTP has no empty path."""
    async with RawReceiver(lambda *_: (OK, None)).running() as receiver:
        client = Client(endpoint(f"http://127.0.0.1:{receiver.port}{tail}"))
        await client.post(b"{}", {})
        await client.close()
    assert receiver.heads[0].split()[1] == sent.encode()


async def test_user_and_password_are_a_header() -> None:
    """They are percent-decoded, and the Host and the target hold nothing of them."""
    async with RawReceiver(lambda *_: (OK, None)).running() as receiver:
        client = Client(endpoint(f"http://us%40er:p%3Aw@127.0.0.1:{receiver.port}/x"))
        await client.post(b"{}", {})
        await client.close()
    head = receiver.heads[0].decode()
    assert "POST /x HTTP/1.1" in head
    assert f"Host: 127.0.0.1:{receiver.port}\r\n" in head
    assert re.search("(?i)authorization: Basic dXNAZXI6cDp3\r\n", head)


async def test_a_kept_connection_that_ends_is_no_failure() -> None:
    """A receiver that closes what it keeps, at any moment after an answer, has failed nothing.

    Each body arrives; one is sent twice only when its connection ended under way.
    """
    chance = random.Random(11)
    receiver = RawReceiver(lambda *_: (OK, chance.choice([0.0, 0.001, chance.uniform(0, 0.1)])))
    async with receiver.running():
        client = Client(endpoint(f"http://127.0.0.1:{receiver.port}/"))
        outcomes: list[Answer | str] = []
        for n in range(200):
            outcomes.append(await client.post(b"%d" % n, {}))
            await asyncio.sleep(chance.choice([0, 0, 0.001, 0.01]))
        await client.close()
    assert [o for o in outcomes if not isinstance(o, Answer)] == []
    arrived = Counter(receiver.bodies)
    assert arrived.keys() == {b"%d" % n for n in range(200)}
    assert max(arrived.values()) <= 2


async def test_a_kept_connection_that_takes_a_request_and_ends_is_tried_again_once() -> None:
    """On a fresh connection, at once, without disturbing what is under way on others."""

    def answer(count: int, head: bytes) -> tuple[bytes, float | None]:
        if b"slow" in head:
            return b"HTTP/1.1 200 -\r\ncontent-length: 2\r\n\r\n", None
        return (OK, None) if count == 0 else (b"", 0)

    async with RawReceiver(answer).running() as receiver:
        client = Client(endpoint(f"http://127.0.0.1:{receiver.port}/"), timeout=3)
        assert isinstance(await client.post(b"first", {}), Answer)
        slow = asyncio.create_task(client.post(b"slow", {"x": "slow"}))
        while b"slow" not in receiver.bodies:
            await asyncio.sleep(0.001)
        # the slow one took the kept connection: another is made, and then used again
        assert isinstance(await client.post(b"second", {}), Answer)
        again = await client.post(b"third", {})
        assert isinstance(again, Answer)
        assert receiver.bodies.count(b"third") == 2
        assert b"Connection: close" in receiver.heads[-1]
        assert not slow.done()
        slow.cancel()
        await asyncio.wait([slow])
        await client.close()


@pytest.mark.parametrize("reset", [-1.0, 0.0])
async def test_a_receiver_that_never_answers_is_asked_once_more_at_most(reset: float) -> None:
    """A new connection that ends is a failure; so is the second end of a kept one's request."""
    ending = False

    def answer(*_: object) -> tuple[bytes, float | None]:
        return (b"", reset) if ending else (OK, None)

    async with RawReceiver(answer).running() as receiver:
        client = Client(endpoint(f"http://127.0.0.1:{receiver.port}/"))
        assert isinstance(await client.post(b"0", {}), Answer)
        ending = True
        assert await client.post(b"1", {}) == CLOSED
        assert receiver.bodies == [b"0", b"1", b"1"]
        assert await client.post(b"2", {}) == CLOSED
        assert receiver.bodies == [b"0", b"1", b"1", b"2"]
        await client.close()


async def test_a_kept_connection_that_is_given_up_with_408_is_no_failure() -> None:
    """Some servers say so before they close what idles; on a new connection it is an answer."""

    def answer(count: int, head: bytes) -> tuple[bytes, float | None]:
        if b"slow" in head or count:
            return status(408), 0
        return OK, None

    async with RawReceiver(answer).running() as receiver:
        client = Client(endpoint(f"http://127.0.0.1:{receiver.port}/"))
        for _ in range(3):
            said = await client.post(b"{}", {})
            assert isinstance(said, Answer)
            assert said.status == 200
        late = await client.post(b"{}", {"x": "slow"})
        assert isinstance(late, Answer)
        assert late.status == 408
        await client.close()


async def test_what_nobody_asked_for_answers_nothing() -> None:
    """A second answer to one request is not the answer to the next: it would be taken as success.

    Whether it comes with the first one or while the connection idles.
    """

    def answer(count: int, head: bytes) -> tuple[bytes, float | None]:
        number = int(re.findall(rb"(?i)number: ([0-9]+)", head)[0])
        return status(500, body=b"%d" % number) + (OK * (count % 3)), None

    async with RawReceiver(answer).running() as receiver:
        client = Client(endpoint(f"http://127.0.0.1:{receiver.port}/"))
        for number in range(12):
            said = await client.post(b"{}", {"number": str(number)})
            assert isinstance(said, Answer)
            assert (said.status, said.body) == (500, b"%d" % number)
            if number % 2 == 0:  # else the connection was not kept
                for writer in receiver.writers:
                    writer.write(OK * 2)
                for _ in range(9):  # the loop reads at each turn what has come
                    await asyncio.sleep(0)
        await client.close()


async def test_a_server_that_speaks_first_is_a_failure() -> None:
    """One connection is made for it, and not another and another."""
    made = 0

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        writer.write(b"220 mail.example.org ESMTP\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    client = Client(endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"), timeout=2)
    assert isinstance(await client.post(b"{}", {}), str)
    assert made == 1
    await client.close()
    server.close()


async def test_an_answer_that_had_begun_is_not_asked_for_again() -> None:
    """Whoever answered half a head has seen the request."""
    async with RawReceiver(
        lambda n, _: (OK, None) if n == 0 else (b"HTTP/1.1 200 OK\r\ncontent-le", 0)
    ).running() as receiver:
        client = Client(endpoint(f"http://127.0.0.1:{receiver.port}/"))
        assert isinstance(await client.post(b"0", {}), Answer)
        said = await client.post(b"1", {})
        await client.close()
    assert said == "it closed the connection in the middle of its answer"
    assert receiver.bodies == [b"0", b"1"]


PIECES = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 ", b"HTTP/9.9 ", b"HTTP/1.0 503 x\r\n", b"ICY 200 OK\r\n",
    b"200", b"099", b"100 Continue\r\n\r\n", b"101 Switching\r\n", b"102 -\r\n\r\n", b"600 -\r\n",
    b"999 \xff\xfe\r\n", b"1e3 -\r\n", b"-1 -\r\n", b"2000 -\r\n", b"308 -\r\n", b"204 -\r\n",
    b"content-length: 5\r\n", b"content-length: -1\r\n", b"content-length: 9999999999999999999\r\n",
    b"content-length: 3, 3\r\n", b"transfer-encoding: chunked\r\n", b"transfer-encoding: \xe9\r\n",
    b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n", b"-5\r\n", b"5;\x00\r\nhel", b"\r\n\r\n",
    b"\r\n", b"\n", b"\r", b"\x00", b": \r\n", b" folded\r\n", b"x" * 9000, b"x: " + b"y" * 9000,
    b"a: b\r\n" * 200, b"set-cookie: \xff=\x80; expires=\x00; max-age=1e999\r\n",
    b"set-cookie: a=b; expires=Mon, 01 Jan 99999 00:00:00 -9999999999999\r\n",
    b'set-cookie: $Version="1; \\777\r\n', b"location: http://[::1\r\n",
    b"location: //\xff\x1b[31m\xe2\x80\xae.example/\r\n", b"location: http://a@b:99999/\r\n",
    b"retry-after: Mon, 01 Jan 2026 00:00:00 -9999999999991999\r\n", b"retry-after: \xd9\xa1\r\n",
    b"retry-after: 1\r\nretry-after: 2\r\n", b"content-encoding: gzip\r\n",
    b"connection: upgrade\r\n", b"upgrade: websocket\r\n", b"\x16\x03\x01\x02\x00",
    b"content-type: text/html; charset=\xff\r\n",
    b"connection: close\r\n", b"\xff\xfeh\x00", "中文".encode("gb18030"), b"{" * 3000,
]  # fmt: skip


def nonsense(chance: random.Random) -> bytes:
    """Return some bytes that begin like an answer, more or less."""
    made = b"".join(chance.choices(PIECES, k=chance.randint(1, 9)))
    if chance.random() < 0.6:
        number = chance.choice([b"200", b"308", b"404", b"503", b"%d" % chance.randint(0, 9999)])
        head = chance.choices(PIECES[17:], k=chance.randint(0, 5))
        made = b"HTTP/1.1 " + number + b" -\r\n" + b"".join(head) + b"\r\n" + made
    raw = bytearray(made)
    for _ in range(chance.choice([0, 0, 1, 3])):
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    return bytes(raw[: chance.choice([len(raw), chance.randint(0, len(raw))])])


async def test_nothing_a_receiver_answers_escapes() -> None:
    """Of hundreds of broken answers each one is an outcome, with a reason in our own words."""
    chance = random.Random(1611)
    receiver = RawReceiver(lambda *_: (nonsense(chance), chance.choice([0, -1.0])))
    async with receiver.running():
        url = f"http://user:hunter22@127.0.0.1:{receiver.port}/hook"
        sender = SignedPost(endpoint(url), now=now, timeout=2)
        for _ in range(400):
            outcome = await sender.post("id", "{}")
            assert isinstance(outcome, Delivered | Failed)
            if isinstance(outcome, Failed):
                assert re.fullmatch(r"[ -~]{3,160}", outcome.reason)
                assert len(outcome.answer) <= 4096
        await sender.close()


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://other.example/secret-path?token=1", "it points to other.example: write that URL"),
        ("//other.example:8443/x", "it points to other.example:8443: write that URL"),
        ("https://user:pw@[2606:2800::1]/", "it points to [2606:2800::1]: write that URL"),
        ("/other", "it points to another path of its own: write that URL"),
        ("https://a\x1b[31m\u202e\u00e9.example/", "it points to a[31m.example: write that URL"),
        ("https://" + "x" * 5000 + "/", f"it points to {'x' * 80}: write that URL"),
        ("http://[::1", "it points to [::1: write that URL"),
        ("https://\u00e9/", None),
        (None, None),
    ],
)
async def test_a_redirect_says_where_it_points(location: str | None, told: str | None) -> None:
    """The host alone, in printable characters and cut; the rest may hold a secret."""
    lines = [] if location is None else [f"location: {location}"]
    answer = status(308, *lines)
    async with RawReceiver(lambda *_: (answer, None)).running() as receiver:
        url = f"http://127.0.0.1:{receiver.port}/"
        sender = SignedPost(endpoint(url), now=now, timeout=2)
        outcome = await sender.post("id", "{}")
        await sender.close()
    assert isinstance(outcome, Failed)
    assert outcome.reason == (f"308, {told}" if told else "308")


async def test_who_only_looks_whether_anybody_is_there_connects_to_no_inner_address() -> None:
    """As `check` does: the guard is that of a delivery."""
    async with RawReceiver(lambda *_: (OK, None)).running() as receiver:
        inner = f"http://0.0.0.0:{receiver.port}/"  # where it does listen, as Linux has it
        with pytest.raises(OSError, match="is not a public address; if it is meant: allow"):
            await reach(endpoint(inner, allow_http=True))
        await reach(endpoint(inner, allow_http=True, allow_private=True))


@pytest.mark.parametrize(("count", "told"), [(3, 200), (10_000, "none")])
async def test_interim_answers_without_end_occupy_nobody(count: int, told: int | str) -> None:
    """A few 1xx answers are passed over; of a flood no more is read than of any answer."""
    flood = b"HTTP/1.1 100 C\r\n\r\n" * count
    async with RawReceiver(lambda *_: (flood + OK, None)).running() as receiver:
        client = Client(endpoint(f"http://127.0.0.1:{receiver.port}/"), timeout=scaled(1.0))
        answer = await client.post(b"{}", {})
        await client.close()
    if isinstance(answer, Answer):
        assert answer.status == told
    else:
        assert answer.startswith("no answer within ")
        assert isinstance(told, str)


async def test_the_bound_counts_for_each_request_of_a_kept_connection() -> None:
    """Large answers one after the other, as pages of an error are, are all read."""
    page = status(500, body=b"x" * 60_000)
    async with RawReceiver(lambda *_: (page, None)).running() as receiver:
        client = Client(endpoint(f"http://127.0.0.1:{receiver.port}/"))
        answers = [await client.post(b"{}", {}) for _ in range(5)]
        await client.close()
    assert [len(a.body) for a in answers if isinstance(a, Answer)] == [60_000] * 5


class Several(AbstractResolver):
    """A resolver that knows one name by these addresses."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return all of them."""
        return [
            ResolveResult(hostname=host, host=each, port=port, family=family, proto=0, flags=0)
            for each in self._addresses
        ]

    async def close(self) -> None:
        """There is nothing to close."""


@pytest.mark.parametrize(
    ("addresses", "listens", "said"),
    [
        (("127.0.0.2", "127.0.0.1"), True, ""),  # nobody listens at the first
        (("10.0.0.5", "::1", "127.0.0.1"), True, ""),  # the guard refuses the first
        (("10.0.0.5", "127.0.0.1"), False, "Connection refused"),
        (("10.0.0.5", "fd00::1"), True, "10.0.0.5 is not a public address"),
    ],
)
async def test_one_good_address_of_a_name_is_enough(
    addresses: tuple[str, ...],
    listens: bool,  # noqa: FBT001  of the table
    said: str,
) -> None:
    """`poller check` finds an endpoint where a delivery would, whichever address comes first."""
    async with RawReceiver(lambda *_: (OK, None)).running() as receiver:
        port = receiver.port if listens else free_port()
        sent = endpoint(f"http://localhost:{port}/")
        if not said:
            await reach(sent, resolver=Several(*addresses))
            return
        with pytest.raises(OSError, match=r".") as problem:
            await reach(sent, resolver=Several(*addresses))
        assert said in reason_of(problem.value)


async def test_names_of_endpoints_are_looked_up_in_threads_of_their_own() -> None:
    """However many hang, what else needs a thread has one."""
    found = await Resolver().resolve("127.0.0.1", 80)
    assert [(each["host"], each["port"]) for each in found] == [("127.0.0.1", 80)]
    threads = [thread.name for thread in threading.enumerate()]
    assert any(name.startswith("webhook names") for name in threads)
    assert not any(name.startswith("asyncio") for name in threads)


async def test_a_literal_address_needs_no_thread(tmp_path: Path) -> None:
    """OpenD is connected to by its address while every common thread is occupied."""
    released = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    hanging = loop.run_in_executor(None, released.wait)
    async with RawReceiver(lambda *_: (OK, None)).running() as receiver, at_most():
        address = Address("127.0.0.1", receiver.port, "main")
        gateway = OpenD(address, Sdk(tmp_path, None), lambda _: None)
        assert await gateway._listening() == "127.0.0.1"  # noqa: SLF001
    released.set()
    await hanging
