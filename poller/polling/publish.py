"""What one poll does for its symbol: read what is known, ask, compare, commit.

The order of effects: the request is spent before it is sent, the watermark moves with the entries.
So a crash between any two steps costs a request and nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Final

from poller.detect.compare import Comparison, compare
from poller.detect.paging import Reading, progress
from poller.errors import Malformed, StoreError, StoreMisfit, Superseded, Unwritable
from poller.markets import Record
from poller.model import Code, Page, market_of
from poller.polling.gate import Gate
from poller.polling.repeats import Repeats
from poller.polling.request import PollJob, fetch
from poller.store.ports import PollerRecords
from poller.store.store import Snapshot, Unparsed
from poller.telemetry.observe import Happened, Observe, Published, Quarantined, Recovered, Trouble

PUBLISHING: Final = "publishing"
"""Subject of the trouble when nothing can be written for any symbol."""

_CONFIRMATIONS: Final = 3


def check_watermark(key: str, code: Code, newest: date | None, now: datetime) -> None:
    """Raise StoreMisfit for a watermark in the future, which would keep its symbol silent.

    `key`: where watermarks are stored. `now`: aware.
    """
    if newest is not None and newest > now.astimezone(market_of(code).zone).date():
        raise StoreMisfit(
            f"{key}: the watermark of {code} is {newest}, a day in the future; remove it and "
            f"it is found again: HDEL {key} {code}"
        )


class Publisher:
    """Publishes what the answers of a market's symbols say that was not known.

    Attributes:
        history: Rows published at the first sight of a symbol.
        committing: How many commits are under way.
    """

    def __init__(
        self,
        records: PollerRecords,
        gate: Gate,
        observe: Observe,
        now: Callable[[], datetime],
        *,
        history: int,
        changed: Callable[[], None],
        waits: Callable[[Code, date], None],
    ) -> None:
        """`changed`: called when a commit has ended.

        `waits`: called when a poll begins to wait with an extreme move that it saw on this day.
        """
        self.history = history
        self.committing = 0
        self._records = records
        self._gate = gate
        self._observe = observe
        self._now = now
        self._changed = changed
        self._waits = waits
        self._cut: dict[Code, int] = {}
        self._repeats = Repeats()

    def configure(self, history: int) -> None:
        """Publish so many rows at first sight from now on."""
        self.history = history
        self._repeats.clear()  # a page that was enough may be too short now

    def start_over(self) -> None:
        """Compare the next answer of every symbol, whatever was seen before."""
        self._repeats.clear()

    def forget(self, code: Code) -> None:
        """Drop what is remembered of a symbol."""
        self._repeats.forget(code)

    async def publish(self, job: PollJob) -> date | None:
        """Poll a symbol whole, and return its watermark; raises GatewayError and StoreError."""
        try:
            return await self._attempt(job)
        except Superseded:
            # an old answer compared again could take a newer one back: ask again
            return await self._attempt(replace(job, grant=await job.budget.acquire()))

    async def _attempt(self, job: PollJob) -> date | None:
        """Read, compare, commit; returns the watermark as it stands then."""
        code = job.code
        try:
            unparsed = await self._records.unparsed(code)
            snapshot = None
            if not self._repeats.is_known(code, unparsed.digest):
                snapshot = self._parsed(code, unparsed)
        except StoreError:
            await job.budget.settle(job.grant, answered=True)  # nothing was sent
            raise
        first = await fetch(job.gateway, job.budget, job.grant, code, None)
        observed_at = self._now()
        if snapshot is None:
            if self._repeats.is_repeat(code, first):
                return self._repeats.watermark(code)
            snapshot = self._parsed(code, unparsed)
        pages = await self._read_on(job, snapshot, first)
        records = [record for page in pages for record in page.records]
        comparison = self._compared(code, records, snapshot, observed_at)
        if comparison.extreme is not None:
            self._waits(code, comparison.extreme)
            await self._gate.settled(market_of(code), comparison.extreme)
            comparison = self._compared(code, records, snapshot, observed_at)
        self.committing += 1
        try:
            await self._records.commit(code, comparison, snapshot, job.lease)
        except StoreMisfit as problem:
            raise Unwritable(str(problem)) from problem
        finally:
            self.committing -= 1
            self._changed()
        self._observe(Quarantined(code, comparison.waiting(snapshot.known)))
        self._repeats.note(code, pages, comparison, snapshot.known, unparsed.digest)
        dropped = [oddity for page in pages for oddity in page.oddities]
        self._tell(code, comparison, [*snapshot.notes, *dropped])
        return comparison.watermark

    def _parsed(self, code: Code, unparsed: Unparsed) -> Snapshot:
        """Return what is known; raises StoreMisfit also when nothing newer could be found."""
        snapshot = unparsed.parse()
        check_watermark(self._records.keys.watermark, code, snapshot.known.newest, self._now())
        return snapshot

    def _compared(
        self, code: Code, records: Sequence[Record], snapshot: Snapshot, observed_at: datetime
    ) -> Comparison:
        market = market_of(code)
        comparison = compare(
            code,
            records,
            snapshot.known,
            observed_at=observed_at,
            history=self.history,
            moves=self._gate.moves(market),
        )
        self._gate.keep(market, comparison.moves)
        return comparison

    def _tell(self, code: Code, comparison: Comparison, notes: Sequence[str]) -> None:
        """Report what was published, and once per change what was odd about the answer."""
        odd = "; ".join([*notes, *comparison.oddities])
        self._observe(Trouble(f"{code} answer", odd) if odd else Recovered(f"{code} answer"))
        if comparison.events:
            self._observe(Recovered(PUBLISHING))
            self._observe(Published(code, comparison.events))

    async def _read_on(self, job: PollJob, snapshot: Snapshot, first: Page) -> list[Page]:
        """Read page after page until there are enough, and return them."""
        pages = [first]
        while True:
            match progress(job.code, pages, snapshot.known, history=self.history):
                case Reading.MORE:
                    grant, key = await job.budget.acquire(), pages[-1].next_key
                    pages.append(await fetch(job.gateway, job.budget, grant, job.code, key))
                case Reading.CUT:
                    self._confirm_cut(job.code, snapshot, pages)
                    return pages
                case Reading.ENOUGH:
                    self._cut.pop(job.code, None)
                    return pages

    def _confirm_cut(self, code: Code, snapshot: Snapshot, pages: Sequence[Page]) -> None:
        """Accept an answer that ends above the watermark only when it was given several times."""
        oldest = min(record.day for page in pages for record in page.records)
        self._cut[code] = self._cut.get(code, 0) + 1
        story = f"OpenD's history of it ends at {oldest}, above the watermark {snapshot.watermark}"
        if self._cut[code] < _CONFIRMATIONS:
            raise Malformed(f"{story}: asking again before anything is published")
        self._cut.pop(code)
        self._observe(Happened(f"{code}: {story}; the days between are not to be had"))
