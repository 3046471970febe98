"""The store of one namespace on a Redis-compatible server, over one set of connections."""

from typing import Final

from poller.errors import StoreMisfit
from poller.store.archive import Archive
from poller.store.namespace import DECISIVE, Namespace
from poller.store.redisinstruments import RedisInstruments
from poller.store.redisleases import RedisLeases
from poller.store.redisledger import RedisLedger
from poller.store.redisplans import RedisPlans
from poller.store.redisrecords import RedisRecords
from poller.store.redisstreams import RedisStreams
from poller.store.rediswatchlist import RedisWatchlist
from poller.store.simulated import SimulationMark
from poller.store.translation import NEEDED

OLDEST: Final = (6, 2)
"""The first Redis with XAUTOCLAIM and the stream commands used here."""


class RedisStore:
    """The ports of one namespace, on a single server, a Cluster, or behind Sentinels.

    Attributes:
        records: What is known of each symbol.
        plans: The plans of the markets, and the notices they announce.
        leases: The lease of the active poller.
        ledger: The requests each account has spent.
        watchlist: The live watchlist.
        instruments: The names and numbers of shares.
        streams: The streams and the signals.
        archive: The histories of many symbols at once, for readers.
        mark: Whether the namespace holds OpenD's reports or a simulation's.
    """

    def __init__(self, url: str, namespace: str, *, replicas: int = 0) -> None:
        """`replicas`: how many of them must have received a commit before it counts as done."""
        self.url = url
        self._namespace = shared = Namespace(url, namespace, replicas=replicas)
        self.keys = shared.keys
        self.records = RedisRecords(shared)
        self.plans = RedisPlans(shared)
        self.leases = RedisLeases(shared)
        self.mark = SimulationMark(shared)
        self.ledger = RedisLedger(shared, self.mark)
        self.watchlist = RedisWatchlist(shared)
        self.instruments = RedisInstruments(shared)
        self.streams = RedisStreams(shared)
        self.archive = Archive(url, namespace)

    async def close(self) -> None:
        """Close every connection."""
        try:
            await self._namespace.close()
        finally:
            await self.archive.close()

    @property
    def behind(self) -> bool:
        """See `Namespace.behind`."""
        return self._namespace.behind

    async def inspect(self) -> str:
        """Return the server's name and version; raises StoreMisfit with the fix if it is unfit."""
        async with self._namespace.translated():
            server = await self._namespace.redis.info("server")
            memory = await self._namespace.redis.info("memory")
        name = "Valkey" if "valkey_version" in server else "Redis"
        version = str(server.get("valkey_version", server["redis_version"]))
        numbers = tuple(int(part) for part in str(server["redis_version"]).split(".")[:2])
        if numbers < OLDEST:
            raise StoreMisfit(f"{name} {version} is too old: {NEEDED}")
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            msg = (
                f"the server's maxmemory-policy is {policy}: it may delete the stream and the "
                "watermarks; set it: CONFIG SET maxmemory-policy noeviction"
            )
            raise StoreMisfit(msg)
        await self._namespace.check_types(DECISIVE)  # the others are checked when used
        await self.records.rehearse()
        await self.ledger.check()
        return f"{name} {version}"
