"""One namespace on a Redis-compatible server: its clients, and errors that name the key."""

import contextlib
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any, Final

from poller.errors import LeaseLost, StoreDown, StoreError, StoreMisfit
from poller.store.connections import Connections
from poller.store.position import LAST
from poller.store.store import LEDGER, TYPES, Keys
from poller.store.translation import WrongType, translated

DECISIVE: Final = ("stream", "quarantine", "releases", "releases_told", "watermark", "simulated")
"""Names of the `Keys` whose content is published, or decides what is."""

_WAIT_LIMIT: Final = 1
"""Seconds that replicas may take to receive a commit."""

_EXHAUSTED: Final = "exhausted the last possible ID"


class Namespace:
    """The clients that the adapters of one namespace share; Any, as redis-py types no answer."""

    def __init__(self, url: str, name: str, *, replicas: int) -> None:
        """`replicas`: how many of them must have received a commit before it counts as done."""
        connections = Connections(url)
        self.keys = Keys(name)
        self.redis = connections.brief(exact=True)
        # on a Cluster, another node may own the slot of the budgets
        self.budgets = self.redis if name == LEDGER else Connections(url).brief()
        self.blocking = connections.blocking()
        self._replicas = replicas
        self._behind = False

    async def close(self) -> None:
        """Close every connection."""
        await self.redis.aclose()
        if self.budgets is not self.redis:
            await self.budgets.aclose()
        await self.blocking.aclose()

    def script(self, name: str) -> Any:  # noqa: ANN401
        """Return a Lua script of this package; call it with `keys`, `args` and `client`."""
        text = (files("poller.store") / "lua" / f"{name}.lua").read_text(encoding="utf-8")
        return self.redis.register_script(text)

    @contextlib.asynccontextmanager
    async def translated(self) -> AsyncIterator[None]:
        """Turn redis-py's errors into ours; one about a key of the wrong type names the key."""
        try:
            with translated():
                yield
        except WrongType:
            await self.check_types()
            raise
        except StoreMisfit as problem:
            if _EXHAUSTED not in str(problem):
                raise
            raise StoreMisfit(await self._exhausted()) from None

    async def _exhausted(self) -> str:
        """Name the stream whose last possible id is used up."""
        keys = (self.keys.stream, self.keys.releases, self.keys.quarantine, self.keys.signals)
        for key in keys:
            with suppress(StoreError), translated():
                if (await self.redis.xinfo_stream(key))["last-generated-id"] == LAST:
                    aside = f"{{{self.keys.namespace}}}:full"
                    return (
                        f"nothing can be appended to {key}: somebody used the last id there can "
                        "be; put it aside, and its readers go on with a new one: "
                        + shlex.join(["redis-cli", "RENAME", key, aside])
                    )
        return "nothing can be appended to a stream that was full just now"

    async def check_types(self, names: Sequence[str] = tuple(TYPES)) -> None:
        """Raise StoreMisfit for the first of these names of `Keys` that has the wrong type."""
        with translated():
            for name in names:
                key, kind = getattr(self.keys, name), TYPES[name]
                found = await self.redis.type(key)
                if found not in {"none", kind}:
                    raise StoreMisfit(wrong_type(key, found, kind))

    async def run(
        self,
        script: Any,  # noqa: ANN401
        keys: Sequence[str],
        arguments: Sequence[str | int],
    ) -> list[str]:
        """Run a script that appends, and wait for the replicas; returns its verdict and details.

        Raises LeaseLost when the lease is no longer held, and StoreDown with too few replicas,
        although the primary has applied it. If another server becomes primary, the entries are lost
        together with the watermark, and so published again; else they are known. Either way once.
        """
        async with self.translated():
            if self._replicas:  # on one connection, as WAIT requires
                async with self.redis.pipeline(transaction=False) as pipe:
                    await script(keys=keys, args=arguments, client=pipe)
                    answer: list[str] = await self._await_replicas(pipe)
            else:
                answer = await script(keys=keys, args=arguments)
        match answer:
            case ["lease"]:
                raise LeaseLost(self.keys.lease)
            case ["type", *detail]:
                raise StoreMisfit(wrong_type(*detail))
        return answer

    async def catch_up(self) -> None:
        """Raise StoreDown if the replicas were behind and still are."""
        if not self._behind:
            return
        async with self.translated(), self.redis.pipeline(transaction=False) as pipe:
            pipe.set(self.keys.replicated, self._replicas)
            await self._await_replicas(pipe)

    async def _await_replicas(self, pipe: Any) -> Any:  # noqa: ANN401
        pipe.wait(self._replicas, _WAIT_LIMIT * 1000)
        answer, reached = await pipe.execute()
        self._behind = reached < self._replicas
        if self._behind:
            raise StoreDown(
                f"fewer than {self._replicas} replicas (redis.replicas) follow within "
                f"{_WAIT_LIMIT} s: start them; nothing is polled until they do"
            )
        return answer

    @property
    def behind(self) -> bool:
        """Whether too few replicas had the last write; checked again before the next grant."""
        return self._behind


def wrong_type(key: str, found: str, wanted: str) -> str:
    """Return the message that a key has the wrong type, and what to do."""
    return (
        f"the key {key} holds a {found}, where this service keeps a {wanted}: choose another "
        f"redis.namespace, or look at the key and delete it: redis-cli DEL {shlex.quote(key)}"
    )
