"""Determines what is watched: from the configuration, or from a running simulation."""

from contextlib import suppress

from poller.cli.runner import print_stderr
from poller.cli.stores import beside
from poller.errors import StoreError
from poller.model import Code
from poller.polling.watchlist import Watchlist
from poller.settings.config import Config
from poller.store.redis_status import RedisStatusStore
from poller.store.redisstore import RedisStore
from poller.telemetry.observe import Fact, Trouble, trouble_text


def troubles_only(fact: Fact) -> None:
    """Print troubles on stderr, and ignore all other facts."""
    if isinstance(fact, Trouble):
        print_stderr(trouble_text(fact.subject, fact.reason))


async def sources_of(config: Config, store: RedisStore) -> dict[Code, list[str]]:
    """Return the watched codes with the sources of each: the configuration, a file, `watch add`."""
    played = await simulated_codes(store)
    if played is not None:  # a simulation watches its own symbols, not those of the configuration
        live = (await store.watchlist.watched()).marks
        found = {code: ["watch add" if live.get(code) else "simulation"] for code in played}
        return {code: why for code, why in found.items() if live.get(code, True)}
    table = config.watchlist
    watchlist = Watchlist(table.codes, table.files, (), store.watchlist, troubles_only)
    await watchlist.refresh(once=True)
    return watchlist.sources()


async def simulated_codes(store: RedisStore) -> tuple[Code, ...] | None:
    """Return the symbols of a simulation; None if the store holds none, or nobody reported them."""
    async with beside(store, RedisStatusStore) as board:
        return await board.symbols() if await board.simulated() else None


async def mention_idle(config: Config, store: RedisStore) -> None:
    """Print on stderr that no poller holds the lease: a service may use another state."""
    async with beside(store, RedisStatusStore) as board:
        with suppress(StoreError):  # what the others say of that key is enough
            if await board.lease():
                return
    place = (
        f"state_dir {config.state_dir.absolute()}"
        if config.redis.url is None
        else f"redis.url, namespace {config.redis.namespace}"
    )
    print_stderr(f"no poller runs on this state ({place}); the next one that does takes it up")


def mention_groups(config: Config) -> None:
    """Print on stderr that the list lacks Futu groups: only the running service can read them."""
    if config.watchlist.futu_groups:
        groups = ", ".join(config.watchlist.futu_groups)
        print_stderr(f"the running service adds the Futu groups {groups}")
