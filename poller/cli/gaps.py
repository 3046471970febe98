"""`poller gaps`: reporting days that the calendar expects and history lacks."""

from collections.abc import Sequence
from datetime import date

from poller import show
from poller.cli.options import ConfigFile, codes_of, load_config
from poller.cli.runner import finish
from poller.cli.stores import Failure, store_of
from poller.cli.watched import mention_groups, simulated_codes, sources_of
from poller.clock import wall_clock
from poller.errors import StoreMisfit
from poller.model import Code, market_of, newest_days
from poller.schedule.calendar import missing_days
from poller.settings.config import Config


def gaps(codes: tuple[str, ...] = (), /, *, json: bool = False, config: ConfigFile = None) -> None:
    """Print reporting days that the calendar expects and history lacks.

    Args:
        codes: HK.00700 US.AAPL …; all that are watched, if none is named
        json: one JSON list
        config: TOML file
    """
    wanted = codes_of(codes) if codes else ()
    finish(_print_gaps(load_config(config, reading=True), wanted, as_json=json))


async def _print_gaps(config: Config, codes: Sequence[Code], *, as_json: bool) -> None:
    found, failures = await gaps_of(config, codes)
    show.print_gaps(found, as_json=as_json)
    if not codes:
        mention_groups(config)
    if failures:
        raise Failure("\n".join(failures))


async def gaps_of(config: Config, codes: Sequence[Code]) -> tuple[list[show.Gaps], list[str]]:
    """Return the reporting days that history lacks, for these codes or all watched ones.

    And a line for each symbol that cannot be read. Raises StoreDown, StoreMisfit and Failure.
    """
    async with store_of(config, existing=True) as store:
        wanted = codes or tuple(await sources_of(config, store))
        simulated = await simulated_codes(store) is not None
        newest = newest_days(await store.records.watermarks())
        now = wall_clock()
        found, failures = [], []
        for code in wanted:
            try:
                known = (await store.records.snapshot(code)).known
            except StoreMisfit as problem:  # of this symbol only: return the others
                failures.append(f"{code}: {problem}")
                continue
            missing = missing_days(market_of(code), known.vintages.keys(), now)
            if simulated:  # its clock is behind the calendar: later days have not come yet
                last = newest.get(market_of(code), date.min)
                missing = tuple(day for day in missing if day < last)
            held = {day: each.reason for day, each in known.held.items() if day in missing}
            since = min(known.vintages, default=None)
            found.append(show.Gaps(code, since, missing, held))
    return found, failures
