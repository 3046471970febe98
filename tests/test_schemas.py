"""The schemas are those of the model, and everything that goes out is as they say."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from poller.delivery.destinations.webhook import body_of
from poller.detect.compare import compare
from poller.events import Foreign, decode
from poller.markets import Record
from poller.markets.hk import HONG_KONG, HkRecord
from poller.model import Code
from poller.schedule.notice import Completed, Detected
from poller.simulator import World
from poller.store.connections import Connections
from poller.store.embedded import Embedded
from poller.store.redisstore import RedisStore
from poller.store.store import ONE_OFF, Entry, Stream
from tests import schemas
from tests.service import later, now

FIELDS = {"stream-entry.json": "EventData", "quarantine-entry.json": "HeldData"}


@cache
def validator(file: str, part: str = "") -> Draft202012Validator:
    """Return a validator of a document, or of one of its definitions."""
    text = json.loads((schemas.FOLDER / file).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(text)
    if part:
        text = {"$ref": f"#/$defs/{part}", "$defs": text["$defs"]}
    return Draft202012Validator(text)


def test_the_documents_are_those_of_the_model() -> None:
    """What is committed is what the model gives; else run: python -m tests.schemas."""
    committed = {file.name: file.read_text(encoding="utf-8") for file in schemas.FOLDER.iterdir()}
    assert committed == schemas.documents()


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    """Channels, messages and schemas refer to one another, never to nothing."""
    document = json.loads(schemas.documents()["asyncapi.json"])
    assert document["asyncapi"] == "3.0.0"
    found = list(references(document))
    for reference in found:
        here = document
        for step in reference.removeprefix("#/").split("/"):
            here = here[step]
    assert len(found) > 10


def references(part: object) -> Iterator[str]:
    """Yield every `$ref` of a document."""
    if isinstance(part, dict):
        yield from (text for name, text in part.items() if name == "$ref")
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from references(each)


async def publish(store: RedisStore, code: Code, *rows: Record) -> None:
    """Read, compare and commit."""
    snapshot = await store.records.snapshot(code)
    found = compare(code, rows, snapshot.known, observed_at=now(), history=50)
    await store.records.commit(code, found, snapshot, ONE_OFF)


async def test_what_goes_out_is_valid(tmp_path: Path) -> None:
    """Entries of every type on a real stream, their webhook bodies, and a held figure."""
    world = World(made_up={"HK": 1, "US": 1})
    async with Embedded(tmp_path).running() as url:
        store, client = RedisStore(url, "short-interest"), Connections(url).brief()
        for code in world.codes():
            await publish(store, code, *world.records(code, now())[:20])
        code = Code("HK.00700")
        rows = [row for row in world.records(code, now()) if isinstance(row, HkRecord)]
        new = later(rows[0], days=1)
        revised = replace(rows[0], aggregated_short=(rows[0].aggregated_short or 0) + 1)
        await publish(store, code, new, revised, *rows[1:])
        assert isinstance(new, HkRecord)
        split = [double(row) for row in (new, revised, *rows[1:])]
        await publish(store, code, *split)
        await publish(store, code, later(new, days=1, aggregated_short=10**12), *split)
        entries = await store.streams.read("0", count=1000, block=None)
        held = await client.xrange(store.keys.quarantine)
        day = rows[0].day
        await store.plans.announce(Detected(HONG_KONG, day, now(), code), ONE_OFF)
        await store.plans.announce(Completed(HONG_KONG, day, now(), 1, (code,)), ONE_OFF)
        notices = await store.streams.read("0", count=10, block=None, stream=Stream.RELEASES)
        await store.close()
        await client.aclose()
    assert {entry.fields["type"].partition(".")[2] for entry in entries} == {
        "reported", "revised", "backfilled", "restated",
    }  # fmt: skip
    assert {entry.fields["market"] for entry in entries} == {"HK", "US"}
    for entry in entries:
        check("stream-entry.json", dict(entry.fields))
        validator("webhook-body.json").validate(json.loads(body(entry)))
    for entry, part in zip(notices, ("DetectedData", "CompletedData"), strict=True):
        validator("release-entry.json").validate(dict(entry.fields))
        validator("release-entry.json", part).validate(json.loads(entry.fields["data"]))
        told = json.loads(body(entry))
        validator("webhook-body.json").validate(told)
        del told["data"]["trading_day"]
        assert not validator("webhook-body.json").is_valid(told)
    assert len(held) == 1
    check("quarantine-entry.json", held[0][1])


def body(entry: Entry) -> str:
    """Return the webhook body of an entry of ours."""
    message = decode(entry.id, entry.fields)
    assert not isinstance(message, Foreign)
    return body_of(message)


def double(row: HkRecord) -> HkRecord:
    """Return a row as a split restates it."""
    return replace(row, aggregated_short=2 * (row.aggregated_short or 0))


def check(file: str, fields: dict[str, str]) -> None:
    """Validate the flat fields, and the JSON in one of them."""
    validator(file).validate(fields)
    validator(file, FIELDS[file]).validate(json.loads(fields["data"]))


@pytest.mark.parametrize(
    ("column", "wrong"),
    [("aggregated_short", 1.5), ("timestamp_str", None), ("close_price", "1"), ("timestamp", ...)],
)
def test_a_wrong_figure_is_refused(column: str, wrong: Any) -> None:  # noqa: ANN401
    """The schemas know the columns' types, and miss none."""
    row = World().records(Code("HK.00700"), now() - timedelta(days=1))[0].columns()
    told: dict[str, Any] = {"record": row, "previous": None, "change": None}
    assert validator("stream-entry.json", "EventData").is_valid(told)
    row[column] = wrong
    if wrong is ...:
        del row[column]
    assert not validator("stream-entry.json", "EventData").is_valid(told)
