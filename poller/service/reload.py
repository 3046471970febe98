"""Reloads the configuration of a running service: what is applied, and what needs a restart.

An invalid file changes nothing. Budget, gateways, store and lease stay as they are.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from poller.errors import ConfigError
from poller.settings.config import Config
from poller.telemetry.observe import Observe, Rejected, Reloaded, Reloading

_RELOADABLE: Final = ("log_level", "watchlist", "schedule", "webhooks")
_WEIGHTS: Final = "watchlist.weights"  # the plan files each symbol under its weight


@dataclass(frozen=True, slots=True)
class Reload:
    """A request to reload: `asked` is set for each, `load` reads the configuration."""

    asked: asyncio.Event
    load: Callable[[], Config]


def merge(running: Config, fresh: Config) -> tuple[Config, Reloaded]:
    """Return the new configuration, and which changed keys it applies or need a restart."""
    changed = tuple(_differences(running, fresh, ""))
    taken = tuple(key for key in changed if key.split(".")[0] in _RELOADABLE and key != _WEIGHTS)
    kept = tuple(key for key in changed if key not in taken)
    update = {section: getattr(fresh, section) for section in _RELOADABLE}
    weights = {"weights": running.watchlist.weights}
    update["watchlist"] = fresh.watchlist.model_copy(update=weights)
    return running.model_copy(update=update), Reloaded(taken, kept)


def _differences(old: Any, new: Any, key: str) -> Iterator[str]:  # noqa: ANN401  of any section
    if isinstance(old, BaseModel) and isinstance(new, BaseModel):
        for name, value in old:
            yield from _differences(value, getattr(new, name), f"{key}.{name}" if key else name)
    elif old != new:
        yield key


async def follow(
    reload: Reload, running: Config, apply: Callable[[Config], None], observe: Observe
) -> None:
    """Reload the configuration whenever asked, for ever; `apply` receives the new one."""
    while True:
        await reload.asked.wait()
        reload.asked.clear()
        observe(Reloading())
        try:
            # in a thread, as a file may be a pipe that nobody writes to
            running, change = merge(running, await asyncio.to_thread(reload.load))
        except ConfigError as refused:
            observe(Rejected(refused.problems))
        else:
            apply(running)
            observe(change)
