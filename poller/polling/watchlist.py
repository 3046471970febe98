"""What is watched: the configuration's codes, files and Futu groups, and the live list on top.

Each source keeps what it last gave when it cannot be read: a file that vanishes while the service
runs takes no symbol with it, and the operator is told once.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from poller.errors import BadCode, GatewayError, StoreDown, TooFrequent
from poller.facts.observe import Observe, Recovered, Trouble
from poller.gateway.opend import Gateway, any_ready
from poller.model import Code, parse_code, unique
from poller.polling.budget import Budget
from poller.settings.codefile import read_codes
from poller.storage.notifier import EventOf, never
from poller.storage.store import WATCHLIST, Store

LOOK: Final = 1.0
"""Seconds between two looks at the files."""

LIVE_EVERY: Final = 30.0
"""Seconds after which the live list is looked at though nothing was signalled."""

GROUPS_EVERY: Final = 300.0
"""Seconds between two readings of the Futu groups."""

GROUPS_WAIT: Final = 60.0
"""Seconds from the first connection on for which all codes wait for the Futu groups."""

GROUP_REQUESTS: Final = 10
GROUP_PERIOD: Final = 30.0
"""OpenD's own limit on requests for watch groups."""


class Watchlist:
    """The codes of all sources. `follow` keeps a poller up to date."""

    def __init__(
        self,
        codes: Sequence[Code],
        files: Sequence[Path],
        groups: Sequence[str],
        store: Store,
        observe: Observe,
        news: EventOf = never,
    ) -> None:
        """`news`: a notifier's, of changes of the live list."""
        self._codes: Sequence[Code] = ()
        self._files: dict[Path, tuple[Code, ...]] = {}
        self._stamps: dict[Path, tuple[int, int, int]] = {}
        self._groups: dict[str, tuple[Code, ...]] = {}
        self._regrouped = asyncio.Event()
        self._live: Mapping[str, bool] = {}
        self._version = -1
        self._news = news
        self._signalled = news(WATCHLIST)
        self._live_at = float("-inf")
        self._changed = True
        self._waits_until = float("inf") if groups else float("-inf")
        self._store = store
        self._observe = observe
        self.configure(codes, files, groups)

    def configure(
        self, codes: Sequence[Code], files: Sequence[Path], groups: Sequence[str]
    ) -> None:
        """Take these sources from now on; what is known of one that stays is kept."""
        self._codes = codes
        self._files = {path: self._files.get(path, ()) for path in files}
        self._stamps = {path: stamp for path, stamp in self._stamps.items() if path in self._files}
        self._groups = {name: self._groups.get(name, ()) for name in groups}
        for path in self._files:
            self._read_file(path)
        self._regrouped.set()
        self._changed = True

    def sources(self) -> dict[Code, list[str]]:
        """Return every watched code with where it comes from."""
        found: dict[Code, list[str]] = {}
        for code in self._codes:
            found.setdefault(code, []).append("configuration")
        for path, codes in self._files.items():
            for code in codes:
                found.setdefault(code, []).append(str(path))
        for group, codes in self._groups.items():
            for code in codes:
                found.setdefault(code, []).append(f"Futu group {group}")
        for text, wanted in self._live.items():
            if wanted:
                found.setdefault(Code(text), []).append("watch add")
            else:
                found.pop(Code(text), None)
        return found

    def current(self) -> tuple[Code, ...]:
        """Return the watched codes, in the order of their sources."""
        return unique(self.sources())

    async def refresh(self) -> None:
        """Read files that changed, and the live list when it is signalled or due."""
        for path in self._files:
            self._read_file(path)
        now = asyncio.get_running_loop().time()
        if now < self._live_at + LIVE_EVERY and not self._signalled.is_set():
            return
        self._signalled = self._news(WATCHLIST)
        try:
            version = await self._store.watch_version()
            if version != self._version:
                self._live = await self._store.watched()
                self._version = version
                self._changed = True
            self._live_at = now
        except StoreDown as problem:
            self._live_at = float("-inf")
            self._observe(Trouble("redis", str(problem)))

    def _read_file(self, path: Path) -> None:
        subject = f"watchlist file {path}"
        try:
            status = path.stat()
        except OSError as problem:
            self._stamps.pop(path, None)
            kept = len(self._files[path])
            text = f"{problem.strerror}; the {kept} codes it last held stay watched"
            self._observe(Trouble(subject, text))
            return
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if self._stamps.get(path) == stamp:
            return
        self._stamps[path] = stamp
        codes, problems = read_codes(path)
        if problems:
            self._observe(Trouble(subject, "; ".join(problems) + "; the other lines count"))
        else:
            self._observe(Recovered(subject))
        if codes or not problems:
            self._files[path] = codes
            self._changed = True

    async def follow(self, watch: Callable[[Sequence[Code]], None]) -> None:
        """Tell `watch` the codes whenever they changed, for ever; `follow_groups` must run too.

        The first time waits for the live list and the groups: were their symbols missing, a
        release under way would be told to be complete too soon.
        """
        loop = asyncio.get_running_loop()
        while True:
            await self.refresh()
            whole = self._version >= 0 and loop.time() >= self._waits_until
            if self._changed and whole:
                self._changed = False
                watch(self.current())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._signalled.wait()

    async def follow_groups(self, gateways: Sequence[Gateway], budget: Budget) -> None:
        """Read the Futu groups again and again, through whichever gateway is ready."""
        loop = asyncio.get_running_loop()
        while True:
            self._regrouped.clear()
            for name in tuple(self._groups):
                await any_ready(gateways)
                self._waits_until = min(self._waits_until, loop.time() + GROUPS_WAIT)
                await self._read_group(name, gateways, budget)
            self._waits_until = float("-inf")  # what could not be read is not waited for
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GROUPS_EVERY):
                    await self._regrouped.wait()

    async def _read_group(self, name: str, gateways: Sequence[Gateway], budget: Budget) -> None:
        subject = f"Futu group {name}"
        answered = True
        try:
            grant = await budget.acquire()
        except StoreDown as problem:
            self._observe(Trouble("redis", str(problem)))
            return
        try:
            gateway = next((gateway for gateway in gateways if gateway.ready), gateways[0])
            texts = await gateway.group(name)
        except TooFrequent:
            await budget.exhaust()
        except GatewayError as problem:
            answered = False
            kept = len(self._groups.get(name, ()))
            text = f"{problem}; the {kept} codes it last held stay watched"
            self._observe(Trouble(subject, text))
        else:
            self._take_group(name, subject, texts)
        finally:
            await budget.settle(grant, answered=answered)

    def _take_group(self, name: str, subject: str, texts: Sequence[str]) -> None:
        if name not in self._groups:  # a reload has just left it out
            return
        codes, others = [], []
        for text in texts:
            try:
                codes.append(parse_code(text))
            except BadCode:
                others.append(text)
        self._groups[name] = unique(codes)
        self._changed = True
        if others:
            shown = ", ".join(others[:10])
            self._observe(Trouble(subject, f"left out, neither HK nor US: {shown}"))
        else:
            self._observe(Recovered(subject))
