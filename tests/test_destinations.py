"""What every destination does, whichever it is: the same suite for each, over real connections.

`pytest -p tests.batch_destination` runs it for a made-up one besides, see test_further_destination.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from poller.delivery.destinations import (
    Destination,
    Sender,
    all_destinations,
    check_usable,
    choose,
    destination_of,
    flags,
)
from poller.delivery.destinations.destination import ANY, Watermarks
from poller.delivery.endpoint import Endpoint
from poller.delivery.retry import Delivered, Failed, Outcome
from poller.errors import ConfigError, StoreMisfit
from poller.events import Message, encode
from poller.markets.hk import HkRecord
from poller.model import Code, Event, EventType, Vintage
from poller.settings.config import load
from tests.feed import event_of
from tests.partners import PARTNERS, TOKEN, Partner
from tests.receiver import SECRET, RawReceiver, status
from tests.relaying import EVERYTHING, Place, place_at, until
from tests.servers import running

LONGEST_REASON = 400
"""Characters told of why an attempt failed: one line of the log."""

each_destination = pytest.mark.parametrize(
    "destination", all_destinations(), ids=lambda each: each.name
)


def refused_by(partner: Partner) -> list[bytes]:
    """Return what a receiver may answer that is no acceptance, however odd."""
    deep = b'{"code":' * 9000
    return [
        *partner.refusals,
        b"",
        b"\x00\xff nothing of HTTP\r\n\r\n",
        status(200, body=b"")[:20],
        b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\nhalf",
        b"HTTP/1.1 500 -\r\n" + b"x: y\r\n" * 9000 + b"\r\n",
        status(500, body=b"\x1b[2J\xe2\x80\xae\r\n" * 9000),
        status(500, body=deep),
        status(500, body=TOKEN.encode() * 100_000),
        status(200, body=b"[" * 2_000_000),
        status(599, "retry-after: \xff", "location: \x7f"),
        status(429, "retry-after: 99999999999999999999"),
    ]


@dataclass
class Other:
    """A receiver that answers what it is told to; `answer` and `closes`: see `RawReceiver`."""

    answer: bytes
    receiver: RawReceiver

    @property
    def bodies(self) -> list[str]:
        """What it read."""
        return [body.decode() for body in self.receiver.bodies]


@contextlib.asynccontextmanager
async def other_end(answer: bytes) -> AsyncIterator[Other]:
    """Run a receiver."""
    other = Other(answer, RawReceiver(lambda _, __: (other.answer, 0.05)))
    async with other.receiver.running():
        yield other


def configured(folder: Path, partner: Partner, port: int = 9) -> Endpoint:
    """Return the endpoint as its table in a file says it."""
    file = folder / "poller.toml"
    url = partner.url.format(port=port)
    file.write_text(f'[[webhooks]]\nname = "desk"\nurl = "{url}"\n{partner.keys}\n', "utf-8")
    (table,) = load(file, {}).webhooks
    return table.endpoint()


def event(code: str = "HK.00700") -> Message:
    """Return what a stream says of one symbol."""
    return event_of(fields(code))


def fields(code: str) -> dict[str, str]:
    """Return the entry of one symbol, all of them of one day."""
    record = HkRecord(None, "2026-11-13", 5_000_000, 0.56, None, None)
    vintage = Vintage(record, 0, datetime(2026, 11, 20, tzinfo=UTC))
    return dict(encode(Event(EventType.REPORTED, Code(code), vintage, None, None)))


async def watermarks() -> dict[Code, date]:
    """Know of nobody."""
    return {}


async def unreadable() -> dict[Code, date]:
    """Fail, as a store does that holds something else there."""
    raise StoreMisfit("the key holds a string")


async def sent(endpoint: Endpoint, *messages: Message, asks: Watermarks = watermarks) -> Outcome:
    """Send one message."""
    sender = destination_of(endpoint).sender(endpoint, asks)
    try:
        return await sender.send(messages)
    finally:
        await sender.close()


def test_each_has_a_partner_here() -> None:
    """Nobody adds a destination without saying what its receiver answers."""
    assert {each.name for each in all_destinations()} <= PARTNERS.keys()


def test_one_is_chosen_for_every_url() -> None:
    """By a flag or by a scheme, none of which two destinations share; one takes what is left."""
    schemes = [scheme for each in all_destinations() for scheme in each.schemes]
    assert len({*schemes}) == len(schemes)
    assert len({*flags()}) == len(flags())
    assert ANY in schemes
    for each in all_destinations():
        assert each.flag is not None or each.schemes
        assert each.depth >= 1


@each_destination
def test_the_configuration_chooses_it(destination: Destination, tmp_path: Path) -> None:
    """URL and keys of a table are enough, and nothing else is needed to use it."""
    endpoint = configured(tmp_path, PARTNERS[destination.name])
    assert destination_of(endpoint) is destination
    assert choose(endpoint.url, [destination.flag or ""]) is destination
    check_usable([endpoint])
    assert TOKEN not in repr(endpoint)
    assert SECRET not in repr(endpoint)


@each_destination
def test_secrets_that_do_not_fit_are_refused(destination: Destination, tmp_path: Path) -> None:
    """With the key and what to do instead, and without the secret."""
    partner = PARTNERS[destination.name]
    for written, problem in partner.badly_kept.items():
        lines = [line for line in partner.keys.splitlines() if not line.startswith("secret")]
        table = "\n".join([*lines, f"secret = {written}"])
        with pytest.raises(ConfigError) as caught:
            configured(tmp_path, replace(partner, keys=table))
        assert "webhooks.0.secret: " in str(caught.value)
        assert problem in str(caught.value)
        assert "hunter" not in str(caught.value)


@each_destination
@pytest.mark.parametrize("url", ["", "nothing", "http://", "https://[x", "a b://c", "\u2028://x"])
def test_a_url_it_cannot_use_is_refused(destination: Destination, url: str) -> None:
    """With a ValueError and nothing else, before anything is sent."""
    with contextlib.suppress(ValueError):
        destination.check_url(url)
    endpoint = Endpoint("desk", url, (), EVERYTHING, destination=destination.name)
    with contextlib.suppress(ValueError):
        destination.check_usable(endpoint)


@each_destination
def test_the_hosts_of_its_services_are_refused_for_others(
    destination: Destination, tmp_path: Path
) -> None:
    """As a plain webhook such a URL would take every event and show nobody any.

    At some hosts whoever signs events may mean events: there, a chat is only refused unsigned.
    """
    plain = PARTNERS["webhook"]
    for service in destination.services:
        for host in service.hosts:
            url = f"https://{host.removeprefix('.')}/x" if host[0] != "." else f"https://a{host}/x"
            keys = "" if service.takes_json == "/" else plain.keys
            with pytest.raises(ConfigError) as caught:
                configured(tmp_path, replace(plain, url=url, keys=keys))
            assert service.instead in str(caught.value)


@each_destination
async def test_it_sends(destination: Destination, tmp_path: Path) -> None:
    """What its receiver takes counts as delivered, was asked for once and shows the event."""
    partner = PARTNERS[destination.name]
    async with other_end(partner.takes) as other:
        endpoint = configured(tmp_path, partner, other.receiver.port)
        assert isinstance(await sent(endpoint, event()), Delivered)
        (body,) = other.bodies
        assert "HK.00700" in body
        assert isinstance(await sent(endpoint, event(), asks=unreadable), Delivered)


@each_destination
async def test_a_refusal_says_what_to_do(destination: Destination, tmp_path: Path) -> None:
    """Each documented answer has its fix, and shows no secret that the receiver repeats."""
    partner = PARTNERS[destination.name]
    async with other_end(b"") as other:
        endpoint = configured(tmp_path, partner, other.receiver.port)
        for other.answer, fix in partner.refusals.items():
            outcome = await sent(endpoint, event())
            assert isinstance(outcome, Failed)
            assert fix in outcome.reason
            assert TOKEN not in f"{outcome.reason} {outcome.answer}"
            assert SECRET not in f"{outcome.reason} {outcome.answer}"


@each_destination
async def test_no_answer_raises(destination: Destination, tmp_path: Path) -> None:
    """Whatever the bytes: a failure of one line, with a bounded piece of the answer."""
    partner = PARTNERS[destination.name]
    async with other_end(b"") as other:
        endpoint = configured(tmp_path, partner, other.receiver.port)
        for other.answer in refused_by(partner):
            outcome = await sent(endpoint, event())
            if other.answer.startswith(b"HTTP/1.1 200") and isinstance(outcome, Delivered):
                continue  # the status may be all that counts
            assert isinstance(outcome, Failed), other.answer[:80]
            assert len(outcome.reason) <= LONGEST_REASON
            assert outcome.reason.isprintable()
            assert len(outcome.answer) <= 4096
    outcome = await sent(endpoint, event())  # nobody listens there any more
    assert isinstance(outcome, Failed)
    assert TOKEN not in outcome.reason


@each_destination
async def test_its_test_message(destination: Destination, tmp_path: Path) -> None:
    """One message, of no event, to the same receiver; a refusal is told as that of an event."""
    partner = PARTNERS[destination.name]
    async with other_end(partner.takes) as other:
        endpoint = configured(tmp_path, partner, other.receiver.port)
        assert isinstance(await destination.test(endpoint), Delivered)
        (body,) = other.bodies
        assert "test" in body
        assert "HK.00700" not in body
        other.answer, fix = next(iter(partner.refusals.items()))
        outcome = await destination.test(endpoint)
        assert isinstance(outcome, Failed)
        assert fix in outcome.reason


@each_destination
async def test_what_check_finds(destination: Destination, tmp_path: Path) -> None:
    """It sends nothing, says how to send a test, and raises OSError when nobody listens."""
    partner = PARTNERS[destination.name]
    async with other_end(partner.takes) as other:
        endpoint = configured(tmp_path, partner, other.receiver.port)
        state, found = await destination.reach(endpoint)
        assert state in {"ok", "not tried"}
        assert "poller webhook test desk" in found
        assert other.bodies == []
    if state == "ok":
        with pytest.raises(OSError, match=r"."):
            await destination.reach(endpoint)


@dataclass
class Noting:
    """Sends as another does, and notes what was taken together."""

    sender: Sender
    taken: list[list[str]] = field(default_factory=list)

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """Pass them on."""
        outcome = await self.sender.send(messages)
        if isinstance(outcome, Delivered):
            self.taken.append([message.id for message in messages])
        return outcome

    async def close(self) -> None:
        """Close what it sends by."""
        await self.sender.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """An empty server."""
    async with running("embedded", tmp_path) as url, place_at(url) as made:
        yield made


async def settled(place: Place) -> bool:
    """Return whether nothing is left to do, nor was given up."""
    now = await place.outbox.status("desk")
    return (now.lag, now.waiting, now.dead) == (0, 0, 0)


@each_destination
async def test_depth_and_order(destination: Destination, tmp_path: Path, place: Place) -> None:
    """From the stream to its receiver: once each, in order in a lane, never more than it takes."""
    partner = PARTNERS[destination.name]
    most = destination.depth
    codes = [f"HK.{n:05}" for n in range(1, most + 2)] if most > 1 else ["HK.00700"] * 10
    async with other_end(partner.takes) as other:
        made = replace(
            configured(tmp_path, partner, other.receiver.port),
            selection=EVERYTHING, rate=1e4, wait=timedelta(seconds=0.5),
        )  # fmt: skip
        noting = Noting(destination.sender(made, watermarks))
        async with place.delivering(made, desk=noting):
            pipe = place.raw.pipeline()
            for n, code in enumerate(codes):
                entry = fields(code)
                pipe.xadd(place.store.keys.stream, entry | {"id": f"{entry['id']}:{n:04}"})
            await pipe.execute()
            await until(lambda: sum(map(len, noting.taken)) >= len(codes))
            await until(lambda: settled(place))
    arrived = [one for together in noting.taken for one in together]
    assert len({*arrived}) == len(arrived) == len(codes)
    assert max(map(len, noting.taken)) <= most
    assert all(one < other_ for one, other_ in pairwise(arrived))
    assert len(other.bodies) == len(noting.taken)
    if most > 1:
        assert max(map(len, noting.taken)) == most
    assert place.said == []
