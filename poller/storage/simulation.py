"""Whether a namespace is a simulation's, and how long that has been played.

Its world stands still while no process plays it. How long it was played is kept beside the mark, so
that whoever plays later, or at the same time, plays the same world at the same place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import Field

from poller.codec import Codec, read_moment
from poller.errors import StoreMisfit, Unreadable
from poller.storage.connections import translated
from poller.storage.namespace import Namespace
from poller.storage.store import OPEND, SIMULATED

BEAT: Final = 1.0
"""Seconds between two `Playtime.beat`."""

_UNHEARD: Final = timedelta(seconds=5)
"""A longer pause counts as this: a world resumed later than it was left takes nothing back."""


@dataclass(frozen=True, slots=True)
class Play:
    """A simulation that `began` then, was last played at `seen`, and rested for `paused` before."""

    began: datetime
    seen: datetime
    paused: timedelta = timedelta()

    def resumed(self, now: datetime) -> "Play":
        """Return the same play taken up `now`."""
        rested = max(now - self.seen - _UNHEARD, timedelta())
        return replace(self, seen=now, paused=self.paused + rested)


class SimulationMark:
    """The mark of one namespace. Every call but `apart` may raise StoreDown or StoreMisfit."""

    def __init__(self, namespace: Namespace) -> None:
        self._keys = namespace.keys
        self._redis = namespace.redis
        self._translated = namespace.translated
        self._simulation: bool | None = None  # until the mark was seen, which never changes

    async def keep_apart(self, *, simulated: bool) -> None:
        """Raise StoreMisfit where a simulator's events and OpenD's would stand in one stream.

        The first that publishes decides for good, also before there is any entry.
        """
        stream, mark = self._keys.stream, self._keys.simulated
        async with self._translated():
            if await self._redis.get(mark) is None:
                # what is older than the mark of OpenD's reports is OpenD's; entries may be trimmed
                older = await self._redis.exists(self._keys.watermark)
                older = older or await self._redis.xlen(stream)
                await self._redis.set(mark, OPEND if older or not simulated else SIMULATED, nx=True)
            marked = self._simulation = await self._redis.get(mark) != OPEND
        if simulated != marked:
            raise StoreMisfit(self.apart(simulated=simulated))

    async def holds_simulation(self) -> bool:
        """Return whether the stream is for what a simulator makes up; not before it is decided."""
        if self._simulation is None:
            async with self._translated():
                if (mark := await self._redis.get(self._keys.simulated)) is not None:
                    self._simulation = mark != OPEND
        return bool(self._simulation)

    def apart(self, *, simulated: bool) -> str:
        """Say why events of this kind cannot be published here, and what to do."""
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


class Playtime:
    """The play of one namespace. Every call may raise StoreDown or StoreMisfit."""

    def __init__(self, namespace: Namespace) -> None:
        self._key = namespace.keys.play
        self._redis = namespace.redis

    async def take_up(self, now: datetime) -> Play:
        """Begin a play, or resume the one that is there; of two at once one begins it."""

        async def play(pipe: Any) -> Play:  # noqa: ANN401  redis-py types no answer
            found = await pipe.hgetall(self._key)
            taken = read_play(self._key, found).resumed(now) if found else Play(began=now, seen=now)
            pipe.multi()
            pipe.hset(self._key, mapping=_written(taken))
            return taken

        with translated():
            taken: Play = await self._redis.transaction(play, self._key, value_from_callable=True)
        return taken

    async def beat(self, now: datetime) -> None:
        """Say that it is being played."""
        with translated():
            await self._redis.hset(self._key, "seen", now.isoformat())


def _written(play: Play) -> dict[str, str]:
    return {
        "began": play.began.isoformat(),
        "seen": play.seen.isoformat(),
        "paused": str(play.paused.total_seconds()),
    }


def read_play(key: str, found: Mapping[str, str]) -> Play:
    """Return the play that stands under `key`; raises StoreMisfit with the cure."""
    try:
        return Play(
            read_moment(found.get("began", "")),
            read_moment(found.get("seen", "")),
            timedelta(seconds=_PAUSED.read(found.get("paused", ""))),
        )
    except Unreadable as problem:
        raise StoreMisfit(
            f"{key}: it does not say how long the simulation was played ({problem}); remove it and "
            f"the simulation begins anew: DEL '{key}'"
        ) from None


_PAUSED: Final = Codec[float](Annotated[float, Field(ge=0, le=1e10, allow_inf_nan=False)], most=40)
