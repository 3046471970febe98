"""How long a simulation has run, not counting the time in which no process ran it.

It is stored in Redis, so that processes that run it later, or at the same time, agree on the time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import Field

from poller.codec import Codec, read_moment
from poller.errors import StoreMisfit, Unreadable
from poller.store.connections import Connections
from poller.store.store import Keys
from poller.store.translation import translated

BEAT: Final = 1.0
"""Seconds between two `Playtime.beat`."""

_UNHEARD: Final = timedelta(seconds=5)
"""Only downtime beyond this counts as a pause, so that simulated time never goes back."""


@dataclass(frozen=True, slots=True)
class Play:
    """A simulation: when it began, was last run, and how long it was paused in between.

    Times are aware.
    """

    began: datetime
    seen: datetime
    paused: timedelta = timedelta()

    def resumed(self, now: datetime) -> "Play":
        """Return the same play, resumed at `now`."""
        rested = max(now - self.seen - _UNHEARD, timedelta())
        return replace(self, seen=now, paused=self.paused + rested)


class Playtime:
    """The play of one namespace. Every call may raise StoreDown or StoreMisfit."""

    def __init__(self, url: str, namespace: str) -> None:
        self._key = Keys(namespace).play
        self._redis = Connections(url).brief()

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    async def resume(self, now: datetime) -> Play:
        """Begin a play, or resume the stored one; of two processes at once, one begins it."""

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
        """Record that it is running."""
        with translated():
            await self._redis.hset(self._key, "seen", now.isoformat())


def _written(play: Play) -> dict[str, str]:
    return {
        "began": play.began.isoformat(),
        "seen": play.seen.isoformat(),
        "paused": str(play.paused.total_seconds()),
    }


def read_play(key: str, found: Mapping[str, str]) -> Play:
    """Parse the play stored under `key`; raises StoreMisfit with the fix."""
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
