"""What is watched, for the commands that ask: where it was said, or what a simulation plays."""

from poller.cli.runner import complain
from poller.cli.stores import beside
from poller.model import Code
from poller.polling.watchlist import Watchlist
from poller.settings.config import Config
from poller.store.redis_status import RedisStatusStore
from poller.store.redisstore import RedisStore
from poller.telemetry.observe import Fact, Trouble, trouble_text


def troubles_only(fact: Fact) -> None:
    """Say troubles only; a command's own result is its answer."""
    if isinstance(fact, Trouble):
        complain(trouble_text(fact.subject, fact.reason))


async def sources_of(config: Config, store: RedisStore) -> dict[Code, list[str]]:
    """Return the watched codes, and why each is: the configuration, a file, `watch add`."""
    played = await simulated_codes(store)
    if played is not None:  # whatever is configured, the simulation's own symbols are watched
        live = (await store.watchlist.watched()).marks
        found = {code: ["watch add" if live.get(code) else "simulation"] for code in played}
        return {code: why for code, why in found.items() if live.get(code, True)}
    table = config.watchlist
    watchlist = Watchlist(table.codes, table.files, (), store.watchlist, troubles_only)
    await watchlist.refresh(once=True)
    return watchlist.sources()


async def simulated_codes(store: RedisStore) -> tuple[Code, ...] | None:
    """Return what a simulation watches; None where OpenD's reports stand, or nobody has told."""
    async with beside(store, RedisStatusStore) as status_store:
        return await status_store.symbols() if await status_store.simulated() else None


def name_groups(config: Config) -> None:
    """Say on stderr what the list lacks: only the running service can read OpenD's groups."""
    if config.watchlist.futu_groups:
        groups = ", ".join(config.watchlist.futu_groups)
        complain(f"the running service adds the Futu groups {groups}")
