"""Groups and streams that vanish, entries removed unread: nothing is lost without a word."""

import json
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import pytest

from poller.delivery.outbox import OutboxKeys
from poller.delivery.selection import Selection
from poller.errors import StoreMisfit
from poller.markets.hk import HONG_KONG
from poller.model import Code
from poller.schedule.notice import Detected
from poller.store.position import LAST
from poller.store.store import ONE_OFF
from tests.feed import SEEN, publish
from tests.golden import VERSIONS, written
from tests.relaying import Noted, Place, endpoint, place_at, until
from tests.servers import KINDS, running

CODE = "HK.00700"
STREAM = "short-interest"
RELEASES = "{short-interest}:releases"
GROUP = "webhook:desk"
STATE = OutboxKeys(STREAM, "desk").state


@pytest.fixture(params=KINDS)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """An empty server of each kind."""
    async with running(request.param, tmp_path) as url, place_at(url) as made:
        yield made


async def vanish(place: Place, how: str) -> None:
    """Let group or stream go."""
    if how == "group":
        await place.raw.xgroup_destroy(STREAM, GROUP)
    elif how == "delete":
        await place.raw.delete(STREAM)
    else:
        await place.raw.rename(STREAM, "elsewhere")


async def got(line: Noted, ids: list[str]) -> None:
    """Wait until the line has had exactly these, in this order."""
    await until(lambda: len(line.ids) >= len(ids))
    assert line.ids == ids


HOW = pytest.mark.parametrize("how", ["group", "delete", "rename"])


@HOW
async def test_what_vanishes_while_delivery_runs_costs_nothing(place: Place, how: str) -> None:
    """The next events arrive, each once, and it is said once that the group was gone."""
    line = Noted()
    async with place.delivering(desk=line):
        sent = await publish(place.store, CODE, [1, 2])
        await got(line, sent)
        await vanish(place, how)
        for day in range(3, 23):
            sent += await publish(place.store, CODE, [day])
        await got(line, sent)
        await until(lambda: any("was gone" in each for each in place.said))
    assert sum("webhook desk: its group on the stream of events was gone" in s for s in place.said)
    assert len([each for each in place.said if "was gone" in each]) == 1
    assert (await place.outbox.status("desk")).lag == 0


@HOW
async def test_what_vanishes_while_delivery_is_down_costs_nothing(place: Place, how: str) -> None:
    """It goes on where it was, and says so; what was not there any more is told with the cure."""
    line = Noted()
    async with place.delivering(desk=line):
        sent = await publish(place.store, CODE, [1, 2])
        await got(line, sent)
    lost = await publish(place.store, CODE, [3]) if how != "group" else []
    await vanish(place, how)
    for day in range(4, 24):
        sent += await publish(place.store, CODE, [day])
    async with place.delivering(desk=line):
        await got(line, sent)
        sent += await publish(place.store, CODE, [24])
        await got(line, sent)
    gone = [each for each in place.said if "was gone" in each]
    assert len(gone) == 1
    assert "goes on after" in gone[0]
    missed = [each for each in place.said if "were removed before they could be taken" in each]
    assert bool(missed) == bool(lost)
    assert all("an unknown number" in m and "replay desk --since" in m for m in missed)


async def test_a_server_without_anything_takes_over(place: Place) -> None:
    """All is gone while it runs, as in a failover to an empty server: what comes is delivered."""
    line = Noted()
    async with place.delivering(desk=line):
        sent = await publish(place.store, CODE, [1, 2])
        await got(line, sent)
        await place.raw.flushall()
        for day in range(3, 13):
            sent += await publish(place.store, CODE, [day])
        await got(line, sent)
    assert any("was gone" in each for each in place.said)


async def test_whoever_is_unknown_beside_entries_says_where_it_begins(place: Place) -> None:
    """All is lost while nobody delivers: nothing tells what was taken, and that is said, once."""
    line = Noted()
    async with place.delivering(desk=line):
        await got(line, await publish(place.store, CODE, [1, 2]))
    await place.raw.flushall()
    await publish(place.store, CODE, range(3, 23))
    async with place.delivering(desk=line):
        sent = await publish(place.store, CODE, [23])
        await until(lambda: line.ids[2:] == sent)
    told = [each for each in place.said if "nothing is on record" in each]
    assert len(told) == 1
    assert "webhook desk" in told[0]
    assert "poller webhook replay desk --since" in told[0]


async def test_the_releases_vanish_alike(place: Place) -> None:
    """Whatever stream it is."""
    line = Noted()
    notices = [Detected(HONG_KONG, date(2020, 1, n), SEEN, Code(CODE)) for n in range(1, 9)]
    async with place.delivering(desk=line):
        await place.store.plans.announce(notices[0], ONE_OFF)
        await got(line, ["HK:2020-01-01:detected"])
    await place.raw.delete(RELEASES)
    for notice in notices[1:]:
        await place.store.plans.announce(notice, ONE_OFF)
    async with place.delivering(desk=line):
        await got(line, [f"HK:2020-01-{n:02}:detected" for n in range(1, 9)])
    assert any("group on the stream of releases was gone" in each for each in place.said)


@pytest.mark.parametrize("down", [False, True], ids=["running", "down"])
@pytest.mark.parametrize("future", ["999999999999999-0", f"{2**63}-0", LAST])
async def test_a_position_of_the_far_future_is_left_again(
    place: Place,
    down: bool,  # noqa: FBT001
    future: str,
) -> None:
    """Somebody's entry of year 33658 goes, with its stream: what comes is taken, once.

    Behind the last id there can be nothing is taken until then, and nothing fails.
    """
    line = Noted()
    async with place.delivering(desk=line):
        sent = await publish(place.store, CODE, [1])
        await got(line, sent)
        await place.raw.xadd(STREAM, {"hello": "there"}, id=future)
        if future == LAST:
            with pytest.raises(StoreMisfit, match=f"RENAME {STREAM} "):
                await publish(place.store, CODE, [2])
        else:
            sent += await publish(place.store, CODE, [2])
        await got(line, sent)
        if future == LAST:
            await until(lambda: has_moved(place, future))
            assert (await place.outbox.status("desk")).lag == 0
        if not down:
            await place.raw.delete(STREAM)
            sent += await publish(place.store, CODE, [3, 4])
            await got(line, sent)
    if down:
        await place.raw.delete(STREAM)
        sent += await publish(place.store, CODE, [3, 4])
        async with place.delivering(desk=line):
            await got(line, sent)
    assert (await place.outbox.status("desk")).lag == 0
    assert not [each for each in place.said if "Redis refuses" in each]


@pytest.mark.parametrize("way", ["trim", "one by one"])
async def test_what_is_removed_unread_is_counted(place: Place, way: str) -> None:
    """As a range and a number, where the server counts; else as a number nobody knows."""
    counts = (await place.raw.info("server"))["redis_version"] >= "7"
    line = Noted()
    async with place.delivering(desk=line):
        sent = await publish(place.store, CODE, [1, 2])
        await got(line, sent)
    await publish(place.store, CODE, range(3, 8))
    entries = await place.raw.xrange(STREAM)
    if way == "trim":
        await place.raw.xtrim(STREAM, maxlen=2, approximate=False)
    else:
        await place.raw.xdel(STREAM, *[entry for entry, _ in entries[2:5]])
    sent += [fields["id"] for _, fields in entries[5:]]
    async with place.delivering(desk=line):
        await got(line, sent)
        sent += await publish(place.store, CODE, [9])
        await got(line, sent)
        if counts or way == "trim":
            await until(lambda: any("were removed" in each for each in place.said))
    missed = [each for each in place.said if "were removed before they could be taken" in each]
    assert len(missed) == (1 if counts or way == "trim" else 0)
    if counts:
        assert f"webhook desk: 3 entries of the stream of events after {entries[1][0]}" in missed[0]
        assert "poller webhook replay desk --since" in missed[0]


async def test_trimming_what_was_read_is_not_told(place: Place) -> None:
    """Nothing is missed, so nothing is said, however the stream was trimmed."""
    line = Noted()
    sent: list[str] = []
    for days in ([1, 2], [3, 4], [5]):
        async with place.delivering(desk=line):
            sent = [*sent, *await publish(place.store, CODE, days)]
            await got(line, sent)
        await place.raw.xtrim(STREAM, maxlen=1, approximate=False)
    assert not [each for each in place.said if "removed" in each or "gone" in each]
    assert len(line.ids) == 5


async def test_what_selects_nothing_moves_as_well(place: Place) -> None:
    """The record and the group of an endpoint follow over what it does not take."""
    other = endpoint("desk", selection=Selection(frozenset({"revised"})))
    async with place.delivering(other, desk=Noted()):
        await publish(place.store, CODE, range(1, 30))
        last = (await place.store.streams.last_entries(1))[0].id

        await until(lambda: has_moved(place, last))
    (group,) = await place.raw.xinfo_groups(STREAM)
    assert (group["name"], group["last-delivered-id"]) == (GROUP, last)
    assert (await place.outbox.status("desk")).lag == 0


async def test_an_older_version_in_between_repeats_nothing(place: Place) -> None:
    """What 0.1.0 took after a downgrade, by its group alone, is not delivered again."""
    line = Noted()
    async with place.delivering(desk=line):
        sent = await publish(place.store, CODE, [1])
        await got(line, sent)
    await publish(place.store, CODE, [2, 3])
    await place.raw.xreadgroup(GROUP, "poller", {STREAM: ">"}, count=9, noack=True)
    sent += await publish(place.store, CODE, [4])
    async with place.delivering(desk=line):
        await got(line, sent)


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_a_released_version_wrote_is_gone_on_with(place: Place, version: str) -> None:
    """What waited is delivered in order, dead letters are read, and the groups' positions taken."""
    for key, told in written(version).items():
        await restore(place, key, told)
    groups = {g["name"]: g for g in await place.raw.xinfo_groups(STREAM)}
    position = groups[GROUP]["last-delivered-id"]
    ahead = [fields["id"] for _, fields in await place.raw.xrange(STREAM, f"({position}")]
    waiting = [
        json.loads(await place.raw.hget(STATE.replace("state", "deliveries"), m.split("|")[1]))
        for m in await place.raw.zrange(STATE.replace("state", "queue"), 0, -1)
    ]
    (letter,) = await place.outbox.dead("desk")
    assert (letter.message is not None, len(letter.attempts) > 0) == (True, True)
    await place.raw.delete(STATE.replace("state", "claims"))  # who held them is long dead
    await place.outbox.enable("desk")  # what waits for a retry is due now
    line = Noted()
    async with place.delivering(desk=line):
        await until(lambda: len(line.ids) >= len(waiting) + len(ahead))
    assert sorted(line.ids) == sorted([each["id"] for each in waiting] + ahead)
    for code in {each.partition(":")[0] for each in line.ids}:
        mine = [each for each in line.ids if each.startswith(f"{code}:")]
        assert mine == sorted(mine, key=[e["id"] for e in waiting].index)
    assert (
        await place.raw.hget(STATE, "position:events")
        == (await place.store.streams.last_entries(1))[0].id
    )


async def has_moved(place: Place, position: str) -> bool:
    """Return whether the endpoint's record stands there."""
    return bool(await place.raw.hget(STATE, "position:events") == position)


async def restore(place: Place, key: str, told: dict[str, object]) -> None:
    """Write a key as a released version left it."""
    value = told["value"]
    match told["type"]:
        case "stream":
            assert isinstance(value, list)
            for entry, fields in value:
                await place.raw.xadd(key, fields, id=entry)
            groups = told.get("groups") or []
            assert isinstance(groups, list)
            for group in groups:
                await place.raw.xgroup_create(key, group["name"], group["last"])
        case "hash":
            await place.raw.hset(key, mapping=value)
        case "zset":
            assert isinstance(value, list)
            await place.raw.zadd(key, dict(value))
        case _:
            await place.raw.set(key, value)


async def test_two_processes_share_a_group_that_vanished(place: Place) -> None:
    """Both find it gone; each event is delivered once all the same."""
    one, two = Noted(), Noted()
    async with place.delivering(desk=one), place.delivering(desk=two):
        sent = await publish(place.store, CODE, [1])
        await until(lambda: len(one.ids) + len(two.ids) >= 1)
        await place.raw.delete(STREAM)
        for day in range(2, 22):
            sent += await publish(place.store, CODE, [day])
        await until(lambda: len(one.ids) + len(two.ids) >= len(sent))
    assert sorted(one.ids + two.ids) == sorted(sent)
