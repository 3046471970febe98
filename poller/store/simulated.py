"""The mark that says whether a namespace holds OpenD's reports or a simulation's."""

from poller.errors import StoreMisfit
from poller.store.namespace import Namespace
from poller.store.store import OPEND, SIMULATED


class SimulationMark:
    """The mark of one namespace. Coroutines may raise StoreDown or StoreMisfit."""

    def __init__(self, namespace: Namespace) -> None:
        self._keys = namespace.keys
        self._redis = namespace.redis
        self._translated = namespace.translated
        self._simulation: bool | None = None  # cached once seen: the mark never changes

    async def forbid_mixing(self, *, simulated: bool) -> None:
        """Raise StoreMisfit if a simulation's events would be mixed with OpenD's.

        The first process to call this decides for good, even before there is any entry.
        """
        stream, mark = self._keys.stream, self._keys.simulated
        async with self._translated():
            if await self._redis.get(mark) is None:
                # data from before there were marks is OpenD's; its entries may have been trimmed
                older = await self._redis.exists(self._keys.watermark)
                older = older or await self._redis.xlen(stream)
                await self._redis.set(mark, OPEND if older or not simulated else SIMULATED, nx=True)
            marked = self._simulation = await self._redis.get(mark) != OPEND
        if simulated != marked:
            raise StoreMisfit(self.mixing_refusal(simulated=simulated))

    async def holds_simulation(self) -> bool:
        """Return whether the namespace is a simulation's; False until that is decided."""
        if self._simulation is None:
            async with self._translated():
                if (mark := await self._redis.get(self._keys.simulated)) is not None:
                    self._simulation = mark != OPEND
        return bool(self._simulation)

    def mixing_refusal(self, *, simulated: bool) -> str:
        """Return why events of this kind cannot be published here, and what to do."""
        stream = self._keys.stream
        if simulated:
            return (
                f"the stream {stream} is for what OpenD reports: a simulation needs a "
                "redis.namespace or a state_dir of its own, like POLLER_STATE_DIR=simulation"
            )
        return (
            f"the stream {stream} is for what a simulation makes up (run --simulate): choose "
            "another redis.namespace or state_dir, or delete that stream and all keys that begin "
            f"with {{{self._keys.namespace}}}:"
        )
