"""The work of the `webhook` commands, on the outbox that the service delivers from."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime

from poller import show
from poller.cli.runner import print_stderr
from poller.cli.stores import Failure, beside, store_of
from poller.clock import wall_clock
from poller.codec import read_json
from poller.delivery.destinations import check_usable, destination_of
from poller.delivery.log_lines import start_texts
from poller.delivery.outbox import Status, WrongKeyType, queue
from poller.delivery.queued import DeadLetter
from poller.delivery.redisoutbox import RedisOutbox
from poller.delivery.replay import ReplayRequest
from poller.delivery.replay import replay as queue_again
from poller.delivery.retry import Delivered, Failed
from poller.delivery.routes import route
from poller.delivery.webhookid import event_id
from poller.errors import ConfigError
from poller.model import isoformat, to_json
from poller.settings.config import Config, Webhook
from poller.store.redis_status import RedisStatusStore
from poller.store.redisstore import RedisStore
from poller.store.store import Stream, signal_of_webhook
from poller.telemetry.roles import parts_of
from poller.telemetry.status import living


def _named(config: Config, name: str) -> Webhook:
    for table in config.webhooks:
        if table.name == name:
            return table
    known = ", ".join(table.name for table in config.webhooks) or "none is configured"
    raise ConfigError([f"there is no webhook {name!r}; known: {known}"])


async def print_states(config: Config, *, as_json: bool) -> None:
    """Print the state of every endpoint, and of those that are no longer configured."""
    async with store_of(config, existing=True) as store, beside(store, RedisOutbox) as outbox:
        configured = [table.name for table in config.webhooks]
        known = await outbox.names(thorough=True)
        left = [name for name in known if name not in configured]
        states = await outbox.statuses([*configured, *left])
    if as_json:
        for name, status in states.items():
            values = {key: _plain(value) for key, value in asdict(status).items()}
            state = state_of(status, left=name in left)
            show.say_json(to_json({"name": name, "state": state} | values))
        return
    names = ("name", "state", "lag", "dead", "last success", "last error", "next attempt")
    now = wall_clock()
    rows = [_row(name, status, left=name in left, now=now) for name, status in states.items()]
    show.print_table(names, rows)
    for name, status in states.items():
        if status.disabled:
            show.say(f"{name}: {status.disabled}; fixed? poller webhook enable {name}")


def is_due(status: Status, now: datetime) -> bool:
    """Return whether the next attempt waits for nothing but its turn at the endpoint's pace."""
    return status.next_attempt is not None and status.next_attempt <= now


def _row(name: str, status: Status, *, left: bool, now: datetime) -> tuple[str, ...]:
    error = f"{_clock(status.last_error_at)} {status.last_error}" if status.last_error else "-"
    return (
        name,
        state_in_words(status, left=left),
        str(status.lag + status.waiting),
        str(status.dead),
        _clock(status.last_success),
        error,
        "due" if is_due(status, now) else _clock(status.next_attempt),
    )


def state_of(status: Status, *, left: bool = False) -> str:
    """Return an endpoint's state in a word; `left`: it is no longer configured."""
    if left:
        return "not configured"
    if status.disabled:
        return "disabled"
    return "failing" if status.failing_since is not None else "active"


def state_in_words(status: Status, *, left: bool = False) -> str:
    """Return the same for people; nothing is known yet of an endpoint that was never used."""
    state = state_of(status, left=left)
    is_used = status.last_success is not None or status.last_error_at is not None
    return "not used yet" if state == "active" and not is_used else state


def _clock(moment: datetime | None) -> str:
    """Format an instant as `tail` does: without the year, so that a row fits 80 columns."""
    return "-" if moment is None else f"{moment:%m-%d %H:%M:%S}"


def _plain(value: object) -> object:
    return isoformat(value) if isinstance(value, datetime) else value


async def test(config: Config, name: str) -> None:
    """Send a test message to an endpoint, and print the outcome; raises Failure if it failed."""
    endpoint = _named(config, name).endpoint()
    check_usable([endpoint])
    destination = destination_of(endpoint)
    match await destination.test(endpoint):
        case Delivered(status):
            shown = f"; to be seen there: {destination.shows}" if destination.shows else ""
            show.say(f"{name} took it{'' if status is None else f': {status}'}{shown}")
        case Failed(reason, answer=answer):
            said = f"; it said: {answer[:200]}" if answer else ""
            raise Failure(f"{name} did not take it: {reason}{said}")


async def replay(
    config: Config,
    name: str,
    ids: Sequence[str],
    since: datetime | None,
    until: datetime | None,
) -> None:
    """Queue events again: from the streams and dead letters, the rest rebuilt from history.

    `ids`: as on the stream, or as a receiver got them.
    """
    endpoint = _named(config, name).endpoint()
    wanted = ReplayRequest([event_id(each) for each in ids], since, until)
    async with store_of(config, existing=True) as store, beside(store, RedisOutbox) as outbox:
        result = await queue_again(store.streams, store.records, outbox, endpoint, wanted)
        await store.streams.signal(signal_of_webhook(name))
    _print_notes(result.notes)
    for code, problem in result.unusable.items():
        print_stderr(f"{code} is left out: {problem}")
    if result.missing:
        raise Failure(
            f"{', '.join(sorted(result.missing))}: in neither the streams, the dead letters of "
            f"{name} nor history, or {name} has yet to take it; see: poller tail --from 0"
        )
    line = f"{_events(result.queued)} to deliver again"
    if not (ids or result.queued or result.waiting):
        line += f"; {name} selects none of that time: see its events, codes and filter"
    line += f"; {result.waiting} more wait already" if result.waiting else ""
    if result.rebuilt:
        others = result.queued + result.waiting - result.rebuilt
        line += f"; {others} as the stream has them, {result.rebuilt} rebuilt from history"
    show.say(line)


def _print_notes(texts: Iterable[str]) -> None:
    """Print on stderr what the service would have logged: by then it is no longer visible."""
    for text in texts:
        print_stderr(text)


def _events(number: int) -> str:
    return "1 event" if number == 1 else f"{number} events"


async def dead(config: Config, name: str, *, requeue: bool, as_json: bool) -> None:
    """Print the dead letters, or queue them again."""
    endpoint = _named(config, name).endpoint()
    async with store_of(config, existing=True) as store, beside(store, RedisOutbox) as outbox:
        letters = await outbox.dead(name)
        if requeue:
            readable = [one.delivery for one in letters if one.delivery is not None]
            items = [route(endpoint, delivery) for delivery in readable]
            await queue(outbox, name, items)
            await store.streams.signal(signal_of_webhook(name))
            status = await outbox.status(name)
            line = f"{_events(len(items))} to deliver again" if letters else "no dead letters"
            left = len(letters) - len(items)
            line += f"; {left} cannot be read and stay" if left else ""
            show.say(f"{line}; {status.waiting} waiting")
            return
    if as_json:
        for document in _documents(letters):
            show.say_json(to_json(document))
        return
    rows = [
        (
            letter.key if letter.message is None else letter.message.id,
            str(len(letter.attempts)),
            _clock(letter.attempts[0].at if letter.attempts else None),
            _clock(letter.attempts[-1].at if letter.attempts else None),
            letter.problem or (letter.attempts[-1].reason if letter.attempts else "-"),
        )
        for letter in letters
    ]
    show.print_table(("event", "attempts", "first", "last", "last error"), rows)


def _documents(letters: Sequence[DeadLetter]) -> Iterator[dict[str, object]]:
    for letter in letters:
        attempts = [asdict(each) | {"at": isoformat(each.at)} for each in letter.attempts]
        document: dict[str, object] = {"stream_id": letter.key}
        if letter.message is None:
            document["raw"] = letter.text
        else:
            document["stream_id"] = letter.message.position
            document |= read_json(letter.text) | {"data": letter.message.data}
        if letter.problem:
            document["problem"] = letter.problem
        yield document | {"attempts": attempts}


async def enable(config: Config, name: str) -> None:
    """Enable an endpoint, and print how to deliver its dead letters again."""
    _named(config, name)
    async with store_of(config, existing=True) as store, beside(store, RedisOutbox) as outbox:
        for stream in Stream:
            start = (await outbox.begin([name], stream))[name]
            if isinstance(start, WrongKeyType):
                raise start
            _print_notes(start_texts(name, stream, start))
        await outbox.enable(name)
        await store.streams.signal(signal_of_webhook(name))
        status = await outbox.status(name)
    waiting = f"{_events(status.waiting)} waited, sent now" if status.waiting else "nothing waits"
    show.say(f"{name} is enabled; {waiting}")
    if status.dead:
        show.say(
            f"{status.dead} dead letters; to deliver them, too: "
            f"poller webhook dead {name} --requeue"
        )


async def forget(config: Config, name: str) -> None:
    """Remove the groups and keys of an endpoint that is not configured."""
    if any(table.name == name for table in config.webhooks):
        raise ConfigError([f"{name} is configured: remove its [[webhooks]] table first"])
    async with store_of(config, existing=True) as store, beside(store, RedisOutbox) as outbox:
        if name not in await outbox.names(thorough=True):
            raise Failure(f"nothing is kept of a webhook {name!r}")
        status = await outbox.status(name)
        await outbox.forget(name)
        delivering = await _delivering(store)
    show.say(f"{name} is forgotten, {status.waiting} waiting events with it")
    if delivering:  # Redis does not hold which endpoints they have
        show.say(
            f"{', '.join(delivering)}: reload (SIGHUP) each that has not read the configuration "
            f"since {name} was removed from it, then forget it again: until then it may be created "
            "again"
        )


async def _delivering(store: RedisStore) -> list[str]:
    """Return the names of the running processes that deliver."""
    async with beside(store, RedisStatusStore) as board:
        reports = living(await board.reports(), wall_clock())
    return sorted(name for name, report in reports.items() if parts_of(report.role).delivers)
