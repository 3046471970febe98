"""What the `webhook` commands do, over the same outbox the service delivers from."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime

from poller import show
from poller.cli.runner import complain
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
            told = {key: _plain(value) for key, value in asdict(status).items()}
            state = word(status, left=name in left)
            show.say_json(to_json({"name": name, "state": state} | told))
        return
    names = ("name", "state", "lag", "dead", "last success", "last error", "next attempt")
    rows = [_row(name, status, left=name in left) for name, status in states.items()]
    show.print_table(names, rows)
    for name, status in states.items():
        if status.disabled:
            show.say(f"{name}: {status.disabled}; mended? poller webhook enable {name}")


def _row(name: str, status: Status, *, left: bool) -> tuple[str, ...]:
    error = f"{_clock(status.last_error_at)} {status.last_error}" if status.last_error else "-"
    return (
        name,
        word(status, left=left),
        str(status.lag + status.waiting),
        str(status.dead),
        _clock(status.last_success),
        error,
        _clock(status.next_attempt),
    )


def word(status: Status, *, left: bool = False) -> str:
    """Say in a word how an endpoint is; `left`: it is configured no more."""
    if left:
        return "not configured"
    if status.disabled:
        return "disabled"
    return "failing" if status.failing_since is not None else "active"


def _clock(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _plain(value: object) -> object:
    return isoformat(value) if isinstance(value, datetime) else value


async def test(config: Config, name: str) -> None:
    """Send an endpoint's test message, and print what came of it."""
    endpoint = _named(config, name).endpoint()
    check_usable([endpoint])
    match await destination_of(endpoint).test(endpoint):
        case Delivered(status):
            show.say(f"{name} took it{'' if status is None else f': {status}'}")
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
    """Queue events again: from the streams, the dead letters, and what history has of the rest.

    `ids`: as the stream has them, or as a receiver got them.
    """
    endpoint = _named(config, name).endpoint()
    wanted = ReplayRequest([event_id(each) for each in ids], since, until)
    async with store_of(config, existing=True) as store, beside(store, RedisOutbox) as outbox:
        made = await queue_again(store.streams, store.records, outbox, endpoint, wanted)
        await store.streams.signal(signal_of_webhook(name))
    _note(made.notes)
    for code, problem in made.unusable.items():
        complain(f"{code} is left out: {problem}")
    if made.missing:
        raise Failure(
            f"{', '.join(sorted(made.missing))}: in neither the streams, the dead letters of "
            f"{name} nor history, or {name} has yet to take it; see: poller tail --from 0"
        )
    told = f"{_events(made.queued)} to deliver again"
    told += f"; {made.waiting} more wait already" if made.waiting else ""
    if made.rebuilt:
        others = made.queued + made.waiting - made.rebuilt
        told += f"; {others} as the stream has them, {made.rebuilt} rebuilt from history"
    show.say(told)


def _note(texts: Iterable[str]) -> None:
    """Say beside the result what a service would have logged: it will not find it any more."""
    for text in texts:
        complain(text)


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
            told = f"{_events(len(items))} to deliver again" if items else "no dead letters"
            left = len(letters) - len(items)
            told += f"; {left} cannot be read and stay" if left else ""
            show.say(f"{told}; {status.waiting} waiting")
            return
    if as_json:
        for line in _told(letters):
            show.say_json(to_json(line))
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


def _told(letters: Sequence[DeadLetter]) -> Iterator[dict[str, object]]:
    for letter in letters:
        attempts = [asdict(one) | {"at": isoformat(one.at)} for one in letter.attempts]
        told: dict[str, object] = {"stream_id": letter.key}
        if letter.message is None:
            told["raw"] = letter.text
        else:
            told["stream_id"] = letter.message.position
            told |= read_json(letter.text) | {"data": letter.message.data}
        if letter.problem:
            told["problem"] = letter.problem
        yield told | {"attempts": attempts}


async def enable(config: Config, name: str) -> None:
    """Let an endpoint be sent to again, and say how to get what it gave up before."""
    _named(config, name)
    async with store_of(config, existing=True) as store, beside(store, RedisOutbox) as outbox:
        for stream in Stream:
            start = (await outbox.begin([name], stream))[name]
            if isinstance(start, WrongKeyType):
                raise start
            _note(start_texts(name, stream, start))
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
    """Remove the groups and the queue of an endpoint that is not configured."""
    if any(table.name == name for table in config.webhooks):
        raise ConfigError([f"{name} is configured: remove its [[webhooks]] table first"])
    async with store_of(config, existing=True) as store, beside(store, RedisOutbox) as outbox:
        if name not in await outbox.names(thorough=True):
            raise Failure(f"nothing is kept of a webhook {name!r}")
        status = await outbox.status(name)
        await outbox.forget(name)
        delivering = await _delivering(store)
    show.say(f"{name} is forgotten, {status.waiting} waiting events with it")
    if delivering:  # which endpoints they have is not told in Redis
        show.say(
            f"{', '.join(delivering)}: reload (SIGHUP) what has not read the configuration since "
            f"{name} was removed from it, then forget it again: until then it is taken up anew"
        )


async def _delivering(store: RedisStore) -> list[str]:
    """Return the living processes that deliver."""
    async with beside(store, RedisStatusStore) as board:
        reports = living(await board.reports(), wall_clock())
    return sorted(name for name, report in reports.items() if report.role in {"run", "deliver"})
