"""One signed POST on real sockets: what is sent, what counts as success, what is refused."""

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks import Webhook

from poller.delivery.addresses import as_address, is_public, refusal
from poller.delivery.destinations.webhook import SignedPost, body_of
from poller.delivery.endpoint import Endpoint
from poller.delivery.retry import Delivered, Failed, Outcome
from poller.delivery.selection import Selection
from poller.delivery.target import check_url
from poller.delivery.webhookid import webhook_id
from poller.detect.compare import Known, compare
from poller.errors import ConfigError
from poller.events import StreamEvent, decode, encode
from poller.markets.hk import HkRecord
from poller.model import Code
from poller.settings.config import load
from poller.store.store import Entry
from tests.feed import event_of
from tests.machine import scaled
from tests.receiver import OK, SECRET, SILENCE, Receiver, status

SEEN = datetime(2026, 5, 8, 9, 15, 2, 123000, tzinfo=UTC)
CODE = Code("HK.00700")


def now() -> datetime:
    """Return the current instant."""
    return datetime.now(UTC)


def entry() -> Entry:
    """Return the stream entry of a first row."""
    row = HkRecord(1777478400, "2026-04-30", 51480638, 0.56, 467.8, 479.2)
    found = compare(CODE, [row], Known(), observed_at=SEEN, history=1)
    return Entry("1715152502123-0", encode(found.events[0]))


def endpoint(url: str, **how: Any) -> Endpoint:  # noqa: ANN401
    """Return an endpoint of the receiver's secret."""
    return replace(Endpoint("desk", url, (SECRET,), Selection()), **how)


async def post(
    to: Endpoint,
    resolver: AbstractResolver | None = None,
    timeout: float = scaled(10),  # noqa: ASYNC109  of the sender
) -> Outcome:
    """Send one event."""
    sender = SignedPost(to, now=now, resolver=resolver, timeout=timeout)
    try:
        return await sender.send([event_of(entry().fields)])
    finally:
        await sender.close()


def test_the_reference_vector() -> None:
    """The library signs as Standard Webhooks prints it."""
    signed = Webhook("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").sign(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        datetime.fromtimestamp(1614265330, UTC),
        '{"test": 2432232314}',
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_body_is_the_contracts() -> None:
    """Minified, with all the promised members."""
    message = decode("1-0", entry().fields)
    assert isinstance(message, StreamEvent)
    body = body_of(message)
    told = json.loads(body)
    assert body == json.dumps(told, separators=(",", ":"), ensure_ascii=False)
    assert list(told) == ["type", "timestamp", "data"]
    assert told["data"].keys() >= {
        "id", "code", "market", "trading_day", "revision", "record", "previous", "change",
    }  # fmt: skip
    assert told["timestamp"] == "2026-05-08T09:15:02.123Z"
    assert told["data"]["record"]["aggregated_short"] == 51480638


async def test_what_is_posted_is_signed_by_every_secret() -> None:
    """Each receiver of a rotation verifies with its own secret; the id holds no dot."""
    other = "whsec_" + "B" * 32
    for secret in (SECRET, other):
        async with Receiver(secrets=(secret,)).running() as receiver:
            sent = endpoint(receiver.url, secrets=(SECRET, other))
            assert await post(sent) == Delivered(200)
            assert receiver.refused == []
            assert (
                receiver.seen[0].id == "HK~00700:2026-04-30:0" == webhook_id(entry().fields["id"])
            )
            assert receiver.headers["content-type"] == "application/json"
            assert receiver.headers["user-agent"].startswith("short-interest-poller/")


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (OK, Delivered(200)),
        (status(204), Delivered(204)),
        (
            status(301, "location: http://127.0.0.1:1/"),
            Failed("301, it points to 127.0.0.1:1: write that URL", 301),
        ),
        (status(400, body=b"what?"), Failed("400", 400, "what?")),
        (status(410), Failed("410", 410)),
        (status(429, "retry-after: 120"), Failed("429", 429, "", timedelta(minutes=2))),
        (status(500, body=b"\xff\x00"), Failed("500", 500, "\ufffd\x00")),
        (status(503, "retry-after: soon"), Failed("503", 503)),
        (SILENCE, Failed("it closed the connection without an answer")),
        (b"HTTP/1.1 500 -\r\ncontent-length: 9\r\n\r\nhal", Failed("500", 500, "hal")),
        (b"HTTP/1.1 200 -\r\ncontent-length: 9\r\n\r\nhal", Delivered(200)),
    ],
)
async def test_what_counts_as_success(answer: bytes, outcome: Outcome) -> None:
    """Only 2xx does; a redirect is not followed; the status decides, however the text ends."""
    async with Receiver(lambda _: answer).running() as receiver:
        assert await post(endpoint(receiver.url)) == outcome
        assert len(receiver.seen) == 1


async def test_garbage_is_a_failure() -> None:
    """What is not HTTP is one, in words."""
    async with Receiver(lambda _: b"\x16\x03\x01 certainly not\r\n\r\n").running() as receiver:
        outcome = await post(endpoint(receiver.url))
    assert isinstance(outcome, Failed)
    assert "not HTTP" in outcome.reason


async def test_no_answer_ends_in_time() -> None:
    """An endpoint that says nothing costs a time-out, not for ever."""
    never = asyncio.Event()
    async with Receiver(lambda _: never).running() as receiver:
        assert await post(endpoint(receiver.url), timeout=1.0) == Failed("no answer within 1 s")
        never.set()


@pytest.mark.parametrize("code", [200, 500])
async def test_a_huge_answer_is_not_read(code: int) -> None:
    """Of ten megabytes 64 KB are looked at, and a little is kept."""
    answer = status(code, body=b"x" * 10_000_000)
    async with Receiver(lambda _: answer).running() as receiver:
        outcome = await post(endpoint(receiver.url))
    match outcome:
        case Delivered(200):
            assert code == 200
        case Failed("500", 500, text):
            assert len(text) < 64 * 1024
        case _:
            pytest.fail(str(outcome))


async def test_no_secret_is_told() -> None:
    """What an endpoint echoes is masked; `repr` shows neither URL nor secret."""
    async with Receiver().running() as receiver:
        sent = endpoint(f"{receiver.url}?token=hunter2")
        receiver.answer = lambda seen: status(500, body=f"{seen.path} {SECRET} x".encode())
        outcome = await post(sent)
    for text in (str(outcome), repr(sent)):
        assert "hunter2" not in text
        assert SECRET.removeprefix("whsec_") not in text
    assert "*** *** x" in str(outcome)


def test_long_bodies_are_not_remembered() -> None:
    """An entry of another client may have 256 Ki characters; 256 of those would be 64 MiB."""
    for length, kept in ((10, True), (20_000, False)):
        message = replace(event_of(entry().fields), data_json=json.dumps({"x": "x" * length}))
        assert (body_of(message) is body_of(message)) == kept


async def test_nobody_listens() -> None:
    """A refused connection is told in a few words."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    assert await post(endpoint(url)) == Failed("no connection: Connection refused")


class Names(AbstractResolver):
    """A resolver that answers what it is told, a different address each time it is asked."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = list(addresses)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the next address."""
        found = self._addresses.pop(0)
        return [
            ResolveResult(hostname=host, host=found, port=port, family=family, proto=0, flags=0)
        ]

    async def close(self) -> None:
        """There is nothing to close."""


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.5", "169.254.169.254", "::1", "fd00::1"])
async def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    """No connection is made to an inner address that only the name service speaks of."""
    async with Receiver().running() as receiver:
        sent = endpoint(f"http://example.org:{receiver.port}/", allow_http=True)
        outcome = await post(sent, Names(address))
        assert isinstance(outcome, Failed)
        assert "allow_private" in outcome.reason
        assert receiver.connected == 0
        if address == "127.0.0.1":
            assert await post(replace(sent, allow_private=True), Names(address)) == Delivered(200)


async def test_a_name_that_changes_its_mind_is_refused() -> None:
    """The address of the very connection counts, whatever was checked before (DNS rebinding)."""
    async with Receiver().running() as receiver:
        sent = endpoint(f"http://example.org:{receiver.port}/", allow_http=True)
        names = Names("127.0.0.1", "127.0.0.1")
        outcomes = [await post(replace(sent, allow_private=True), names), await post(sent, names)]
        assert outcomes[0] == Delivered(200)
        assert isinstance(outcomes[1], Failed)
        assert receiver.connected == 1


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1"])
async def test_an_address_written_oddly_is_refused(host: str) -> None:
    """The system reads these as the loopback; the guard sees where the connection goes."""
    async with Receiver().running() as receiver:
        outcome = await post(endpoint(f"http://{host}:{receiver.port}/", allow_http=True))
        assert isinstance(outcome, Failed)
        assert receiver.connected == 0


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fc00::1", "ff02::1",
     "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"],
)  # fmt: skip
def test_what_is_not_public(text: str) -> None:
    """Loopback, private, link-local, shared, multicast, and IPv6 that wraps one of them."""
    address = as_address(text)
    assert address is not None
    assert not is_public(address)
    assert refusal(text, local=False, allow_private=False) is not None


@pytest.mark.parametrize("text", ["93.184.215.14", "2606:2800:21f::1", "::ffff:93.184.215.14"])
def test_what_is_public(text: str) -> None:
    """The internet is."""
    assert refusal(text, local=False, allow_private=False) is None


def test_the_loopback_is_meant_only_where_it_is_named() -> None:
    """A URL that names the loopback leads there and nowhere else inside."""
    assert refusal("127.0.0.1", local=True, allow_private=False) is None
    assert refusal("10.0.0.1", local=True, allow_private=False) is not None


@pytest.mark.parametrize(
    ("url", "how"),
    [
        ("https://example.org/x", {}),
        ("http://127.0.0.1:9/x", {}),
        ("http://[::1]/", {}),
        ("http://localhost:9", {}),
        ("http://example.org/", {"allow_http": True}),
        ("https://10.0.0.1/", {"allow_private": True}),
    ],
)
def test_which_urls_are_accepted(url: str, how: dict[str, bool]) -> None:
    """Https anywhere outside, plain http to a loopback it names; the rest must be allowed."""
    check_url(url, **{"allow_http": False, "allow_private": False} | how)


@pytest.mark.parametrize(
    "url",
    ["http://a.org/", "https://10.0.0.1/", "ftp://a.org/", "a.org", "", "https://a.org:hunter2/",
     "https://", "https://[1::2", "http://10.0.0.1/"],
)  # fmt: skip
def test_which_urls_are_refused(url: str) -> None:
    """Whatever is refused comes with a cure, and the URL is not shown."""
    with pytest.raises(ValueError, match=r"https|allow_private") as caught:
        check_url(url, allow_http=False, allow_private=False)
    assert "a.org" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def configured(tmp_path: Path, text: str, **environment: str) -> Callable[[], Endpoint]:
    """Return how the first endpoint of a configuration is read."""
    file = tmp_path / "poller.toml"
    file.write_text(text)

    def read() -> Endpoint:
        return load(file, environment).webhooks[0].endpoint()

    return read


def test_secrets_come_from_places_of_their_own(tmp_path: Path) -> None:
    """One or several, from the file, from files of their own, or from the environment."""
    other = "whsec_" + "B" * 32
    (tmp_path / "a").write_text(f"{SECRET}\n")
    (tmp_path / "b").write_text(f"{SECRET}\n{other}\n")
    head = '[[webhooks]]\nname = "desk"\nurl = "https://example.org/"\n'
    assert configured(tmp_path, f'{head}secret = "{SECRET}"')().secrets == (SECRET,)
    assert configured(tmp_path, f'{head}secret_file = "{tmp_path}/b"')().secrets == (SECRET, other)
    files = f'{head}secret_file = ["{tmp_path}/a", "{tmp_path}/b"]'
    assert configured(tmp_path, files)().secrets == (SECRET, SECRET, other)
    both = {"POLLER_WEBHOOKS__0__SECRET": f"{SECRET},{other}"}
    assert configured(tmp_path, head, **both)().secrets == (SECRET, other)
    (tmp_path / "u").write_text("https://example.org/u\n")
    named = f'[[webhooks]]\nname = "d"\nurl_file = "{tmp_path}/u"\nsecret = "{SECRET}"'
    assert configured(tmp_path, named)().url == "https://example.org/u"


def test_a_wrong_endpoint_is_refused_with_its_cure(tmp_path: Path) -> None:
    """Every problem is one line with key and cure; no secret is shown."""
    text = (
        '[[webhooks]]\nname = "a"\nurl = "http://example.org/hunter2"\nsecret = "hunter2"\n'
        f'[[webhooks]]\nname = "a"\nurl = "https://example.org/"\n'
        f'[[webhooks]]\nname = "b"\nurl = "https://example.org/"\nsecret_file = "{tmp_path}/no"\n'
    )
    with pytest.raises(ConfigError) as caught:
        configured(tmp_path, text)()
    lines = str(caught.value)
    for part in ("webhooks.0.url", "allow_http", "webhooks.0.secret", "token_bytes(32)"):
        assert part in lines
    assert "webhooks.1.secret" in lines
    assert "webhooks.2.secret_file" in lines
    assert "hunter2" not in lines
    twice = f'[[webhooks]]\nname = "a"\nurl = "https://example.org/"\nsecret = "{SECRET}"\n' * 2
    with pytest.raises(ConfigError, match="name of two"):
        configured(tmp_path, twice)()


@pytest.mark.parametrize("spacing", [None, 3])
def test_every_event_makes_a_minified_body(spacing: int | None) -> None:
    """Whoever wrote the entry, in whatever spacing: the body is minified and has all of it."""
    fields = dict(entry().fields)
    data = json.loads(fields["data"]) | {"later": [1.5], "é": "ü"}
    message = decode("1-0", fields | {"data": json.dumps(data, indent=spacing)})
    assert isinstance(message, StreamEvent)
    body = body_of(message)
    told = json.loads(body)
    assert body == json.dumps(told, separators=(",", ":"), ensure_ascii=False)
    assert told["data"] == data


def test_ids_are_distinct() -> None:
    """Two events never share an idempotency key, and it holds no dot."""
    ids = ["HK.00700:2026-04-30:0", "HK.00700:2026-04-30:1", "US.BRK.B:2026-04-30:0",
           "US.BRK-B:2026-04-30:0", "US.BRK_B:2026-04-30:0"]  # fmt: skip
    made = [webhook_id(each) for each in ids]
    assert len(set(made)) == len(ids)
    assert not any("." in each for each in made)


@pytest.mark.parametrize(
    ("line", "cure"),
    [
        ('url = "https://a.org/"', "token_bytes"),
        ('url = "https://a.org/"\nsecret = "a,b"', "token_bytes"),
        ('url = "slack://a/b/c"\nsecret = "x"', "leave it out"),
        ('url = "https://a.org/"\nfeishu = true\nsecret = ["hunter2", "b"]', "one secret"),
        ('url = "https://a.org/"\ncodes = ["hk.*"]', "HK"),
        ('url = "https://a.org/"\nfilter = "shares >"', "filter"),
    ],
)
def test_which_secrets_fit(tmp_path: Path, line: str, cure: str) -> None:
    """A POST is signed, a bot has one secret or none, and a service's stands in its URL."""
    with pytest.raises(ConfigError, match=cure) as caught:
        configured(tmp_path, f'[[webhooks]]\nname = "a"\n{line}\n')()
    assert "hunter2" not in str(caught.value)


def test_how_an_endpoint_is_told(tmp_path: Path) -> None:
    """By its URL's host or scheme, or because the table says what it is."""
    head = '[[webhooks]]\nname = "a"\n'
    slack = configured(tmp_path, f'{head}url = "slack://a/b/c"\nwait = 5')()
    assert (slack.destination, slack.wait) == ("apprise", timedelta(seconds=5))
    bot = configured(tmp_path, f'{head}url = "https://a.org/"\nfeishu = true\nsecret = "x"')()
    assert (bot.destination, bot.secrets) == ("feishu", ("x",))
    pasted = configured(tmp_path, f'{head}url = "https://hooks.slack.com/services/T0/B0/x"')()
    assert pasted.destination == "slack"
