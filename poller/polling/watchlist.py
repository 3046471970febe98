"""What is watched: the configuration's codes, files and Futu groups, and the live list on top.

Each source is debounced (`settling`): additions count at once, removals only after the source has
stayed the same for a while. A source that cannot be read keeps its last codes, which is reported
once.
"""

import asyncio
import stat
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from poller.clock import wait_set, wall_clock
from poller.errors import BadCode, GatewayError, StoreDown, StoreMisfit, TooFrequent
from poller.gateway.opend import Gateway, any_ready
from poller.markets import market_names
from poller.model import Code, parse_code, unique
from poller.polling.budget import Budget
from poller.polling.settling import SETTLED, Outcome, Settling
from poller.settings.codefile import MOST_CODES, read_codes
from poller.store.notifier import EventOf, never
from poller.store.ports import LiveWatchlist
from poller.store.store import WATCHLIST
from poller.telemetry.observe import Happened, Observe, Recovered, Trouble, redis_trouble

LOOK: Final = 1.0
"""Seconds between two looks at the files."""

LIVE_EVERY: Final = 30.0
"""Seconds after which the live list is read even without a signal."""

GROUPS_EVERY: Final = 300.0
"""Seconds between two readings of the Futu groups; less while codes of one are missing."""

GROUPS_WAIT: Final = 60.0
"""Seconds after the first connection that all codes wait for the Futu groups."""

FILES_WAIT: Final = 60.0
"""Seconds after the start that all codes wait for a file that is being written."""

GROUP_REQUESTS: Final = 10
GROUP_PERIOD: Final = 30.0
"""OpenD's own limit on requests for watch groups."""

_LIVE: Final = "live watchlist"
_EARLIER: Final = "watchlist of the last run"
_SHOWN: Final = 10
_SHOWN_LENGTH: Final = 40

Stamp = tuple[int, int, int]


@dataclass
class _File:
    """The state of a file. `changed_at`: when it got its stamp, in seconds of the loop's clock."""

    source: Settling = field(default_factory=Settling)
    stamp: Stamp | None = None
    changed_at: float = 0.0
    read_as: tuple[Stamp, bool] | None = None
    codes: tuple[Code, ...] = ()
    problems: tuple[str, ...] = ()
    whole: bool = False  # it has not been written for a while, or does not exist


class Watchlist:
    """The codes of all sources. `follow` keeps a poller up to date."""

    def __init__(
        self,
        codes: Sequence[Code],
        files: Sequence[Path],
        groups: Sequence[str],
        live: LiveWatchlist,
        observe: Observe,
        news: EventOf = never,
        *,
        aside: Callable[..., Awaitable[Any]] = asyncio.to_thread,
    ) -> None:
        """`news`: a notifier's; it signals changes of the live list.

        `aside`: runs what may block, such as reading from a network drive whose server is away.
        """
        self._codes: Sequence[Code] = ()
        self._files: dict[Path, _File] = {}
        self._groups: dict[str, Settling] = {}
        self._regrouped = asyncio.Event()
        self._live = Settling()
        self._earlier: Settling | None = None  # what the last run watched, until this one settled
        self._version: int | None = None
        self._asked_live = False
        self._news = news
        self._signalled = news(WATCHLIST)
        self._live_at = float("-inf")
        self._changed = True
        self._waits_until = float("inf") if groups else float("-inf")
        self._live_list = live
        self._observe = observe
        self._aside = aside
        self.configure(codes, files, groups)

    def configure(
        self, codes: Sequence[Code], files: Sequence[Path], groups: Sequence[str]
    ) -> None:
        """Use these sources from now on, and keep the state of those that stay."""
        self._codes = codes
        self._files = {path: self._files.get(path, _File()) for path in files}
        # the next reading may be minutes away, so missing codes are reported at once
        self._groups = {name: self._groups.get(name, Settling(brief=0)) for name in groups}
        self._regrouped.set()
        self._earlier = None  # a changed configuration is meant
        self._changed = True

    def remember(self, codes: Sequence[Code]) -> None:
        """Keep, for a while after the start, codes of the last run that no source names now.

        A file may have been truncated while no process ran. Without files there is no need to.
        """
        if self._files and codes:
            self._earlier = Settling(brief=0)
            self._earlier.offer(dict.fromkeys(codes, True), asyncio.get_running_loop().time())

    def sources(self) -> dict[Code, list[str]]:
        """Return every watched code with the names of its sources."""
        found: dict[Code, list[str]] = {}
        for code in self._codes:
            found.setdefault(code, []).append("configuration")
        for path, file in self._files.items():
            for code in file.source.codes:
                found.setdefault(code, []).append(str(path))
        for group, source in self._groups.items():
            for code in source.codes:
                found.setdefault(code, []).append(f"Futu group {group}")
        for code, wanted in self._live.marks.items():
            if wanted:
                found.setdefault(code, []).append("watch add")
            else:
                found.pop(code, None)
        return found

    def current(self) -> tuple[Code, ...]:
        """Return the watched codes, in the order of their sources."""
        earlier = self._earlier.marks.items() if self._earlier else ()
        return unique([*self.sources(), *(code for code, wanted in earlier if wanted)])

    async def refresh(self, *, once: bool = False) -> None:
        """Read files that changed, and the live list when it is signalled, in doubt, or due.

        `once`: take them as they are, settled or not.
        """
        now = asyncio.get_running_loop().time()
        for path, file in self._files.items():
            await self._look_at_file(path, file, now, once=once)
        due = now >= self._live_at + LIVE_EVERY or self._live.recheck is not None
        if not due and not self._signalled.is_set():
            return
        self._signalled = self._news(WATCHLIST)
        try:
            await self._look_at_live(now)
            self._live_at = now
        except StoreDown as problem:
            self._live_at = float("-inf")
            self._observe(redis_trouble(problem))
        except StoreMisfit as problem:
            self._live_at = now
            self._asked_live = True  # unreadable; continue with the other sources
            text = f"{problem}; the {len(self._live.marks)} codes it last held count on"
            self._observe(Trouble(_LIVE, text))

    async def _look_at_live(self, now: float) -> None:
        version = await self._live_list.version()
        if version == self._version and self._live.recheck is None:
            return
        found = await self._live_list.watched()
        self._version, self._asked_live = version, True
        outcome = self._live.offer(found.marks, now)
        self._report(_LIVE, self._live, outcome, [found.foreign] if found.foreign else [])

    async def _look_at_file(self, path: Path, file: _File, now: float, *, once: bool) -> None:
        subject = _subject(path)
        try:
            read = await self._aside(self._read_file, path, file, now, once=once)
            if not read and file.source.recheck is None:
                return
        except OSError as problem:
            file.stamp = file.read_as = None
            file.whole = True
            kept = len(file.source.codes)
            text = f"{problem.strerror}; the {kept} codes it last held stay watched"
            self._observe(Trouble(subject, text))
            return
        outcome, told = Outcome(changed=False), list(file.problems)
        if file.codes or not told:
            told += ["the other lines count"] if told else []
            outcome = file.source.offer(dict.fromkeys(file.codes, True), now)
            if not file.source.codes and file.whole:
                told.append("it holds no code")
        elif kept := len(file.source.codes):
            told.append(f"the {kept} codes it last held stay watched")
        self._report(subject, file.source, outcome, told)

    @staticmethod
    def _read_file(path: Path, file: _File, now: float, *, once: bool) -> bool:
        """Read a file that has changed, or settled since; return whether it was read.

        A last line without a newline counts only once the file has settled: `US.A` may become
        `US.AAPL`.
        """
        stamp, age = _look(path)
        if stamp != file.stamp:
            # a file seen for the first time may be old
            file.changed_at = now - (0 if file.stamp else min(max(age, 0), SETTLED))
            file.stamp = stamp
        whole = once or now - file.changed_at >= SETTLED
        if (stamp, whole) != file.read_as:
            codes, problems = read_codes(path, to_end=whole)
            if not whole or _look(path)[0] == stamp:  # else it is read again next time
                file.codes, file.problems = codes, tuple(problems)
                file.read_as, file.whole = (stamp, whole), whole
                return True
        return False

    def _report(
        self, subject: str, source: Settling, outcome: Outcome, problems: Sequence[str]
    ) -> None:
        self._changed = self._changed or outcome.changed
        told = [*problems, source.doubt] if source.doubt else problems
        self._observe(Trouble(subject, "; ".join(told)) if told else Recovered(subject))
        if outcome.dropped:
            text = f"{subject}: it has settled, {outcome.dropped} codes are gone from it"
            self._observe(Happened(text))

    async def follow(self, watch: Callable[[Sequence[Code]], None]) -> None:
        """Pass the codes to `watch` whenever they change, for ever; `follow_groups` must run too.

        The first call waits for the live list, the groups and files that are being written: if
        their symbols were missing, a release under way would be announced as complete too soon.
        """
        loop = asyncio.get_running_loop()
        files_until, began = loop.time() + FILES_WAIT, False
        while True:
            await self.refresh()
            written = [path for path, file in self._files.items() if not file.whole]
            began = began or (
                self._asked_live
                and loop.time() >= self._waits_until
                and (not written or loop.time() >= files_until)
            )
            if began and self._earlier is not None:
                self._offer_earlier(self._earlier, loop.time())
            if self._changed and began:
                self._changed = False
                watch(self.current())
            await wait_set(self._signalled, LOOK)

    def _offer_earlier(self, earlier: Settling, now: float) -> None:
        removed = {code: False for code, wanted in self._live.marks.items() if not wanted}
        outcome = earlier.offer(removed | dict.fromkeys(self.sources(), True), now)
        self._report(_EARLIER, earlier, outcome, [])
        if earlier.recheck is None:
            self._earlier = None

    async def follow_groups(
        self, gateways: Sequence[Gateway], account: str, budget: Budget
    ) -> None:
        """Read the Futu groups periodically through any ready gateway of the account, for ever.

        Groups belong to a user: another account may have groups of the same names.
        """
        gateways = [gateway for gateway in gateways if gateway.account == account]
        loop = asyncio.get_running_loop()
        while True:
            self._regrouped.clear()
            for name in tuple(self._groups):
                await any_ready(gateways)
                self._waits_until = min(self._waits_until, loop.time() + GROUPS_WAIT)
                await self._read_group(name, gateways, budget)
            self._waits_until = float("-inf")  # do not wait for what could not be read
            doubts = [pause for group in self._groups.values() if (pause := group.recheck)]
            await wait_set(self._regrouped, min([*doubts, GROUPS_EVERY]))

    async def _read_group(self, name: str, gateways: Sequence[Gateway], budget: Budget) -> None:
        subject = f"Futu group {name}"
        answered = True
        try:
            grant = await budget.acquire()
        except StoreDown as problem:
            self._observe(redis_trouble(problem))
            return
        except StoreMisfit as problem:
            self._observe(Trouble(subject, str(problem)))
            return
        try:
            gateway = next((gateway for gateway in gateways if gateway.ready), gateways[0])
            texts = await gateway.group(name)
        except TooFrequent:
            await budget.exhaust()
        except GatewayError as problem:
            answered = False
            source = self._groups.get(name)
            kept = len(source.codes) if source else 0
            text = f"{problem}; the {kept} codes it last held stay watched"
            self._observe(Trouble(subject, text))
        else:
            self._take_group(name, subject, texts)
        finally:
            await budget.settle(grant, answered=answered)

    def _take_group(self, name: str, subject: str, texts: Sequence[str]) -> None:
        if (source := self._groups.get(name)) is None:  # a reload has just removed it
            return
        now = asyncio.get_running_loop().time()
        codes: dict[Code, bool] = {}
        others = []
        for text in texts:
            try:
                code = parse_code(text)
            except BadCode:
                others.append(text if text.isprintable() else repr(text))
            else:
                if len(codes) < MOST_CODES:
                    codes[code] = True
        outcome = source.offer(codes, now)
        self._report(subject, source, outcome, _left_out(others, len(texts)))


def _left_out(others: Sequence[str], count: int) -> list[str]:
    """Return, in words, which of the `count` codes of a group are left out."""
    told = []
    if others:
        shown = ", ".join(text[:_SHOWN_LENGTH] for text in others[:_SHOWN])
        more = f" and {len(others) - _SHOWN:,} more" if len(others) > _SHOWN else ""
        told.append(f"left out, neither {market_names(' nor ')}: {shown}{more}")
    if count - len(others) > MOST_CODES:
        told.append(f"{MOST_CODES:,} codes are taken of one source, not all {count:,}")
    return told


def _subject(path: Path) -> str:
    return f"watchlist file {path}"


def _look(path: Path) -> tuple[Stamp, float]:
    """Return a stamp that changes with every write, and the age in seconds; raises OSError."""
    status = path.stat()
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    # other kinds of files are refused when read; their time may change all the time
    age = wall_clock().timestamp() - status.st_mtime if stat.S_ISREG(status.st_mode) else SETTLED
    return stamp, age
