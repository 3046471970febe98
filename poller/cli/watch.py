"""The `watch` commands: show and change the live watchlist."""

import json
from collections.abc import Sequence

from cyclopts import App

from poller import show
from poller.cli.options import ConfigFile, codes_of, load_config
from poller.cli.runner import finish
from poller.cli.stores import store_of
from poller.cli.watched import mention_groups, mention_idle, sources_of
from poller.model import Code
from poller.settings.config import Config

watch = App(
    name="watch", help="Show or change the live watchlist; takes effect in a running service."
)


@watch.command(name="add")
def watch_add(codes: tuple[str, ...], /, *, config: ConfigFile = None) -> None:
    """Watch these codes from now on, on top of the configuration.

    Args:
        codes: HK.00700 US.AAPL …
        config: TOML file
    """
    finish(set_watched(load_config(config, reading=True), codes_of(codes), wanted=True))


@watch.command(name="remove")
def watch_remove(codes: tuple[str, ...], /, *, config: ConfigFile = None) -> None:
    """Stop watching these codes, whatever the configuration says; their history stays.

    Args:
        codes: HK.00700 US.AAPL …
        config: TOML file
    """
    finish(set_watched(load_config(config, reading=True), codes_of(codes), wanted=False))


@watch.command(name="list")
def watch_list(
    codes: tuple[str, ...] = (), /, *, json: bool = False, config: ConfigFile = None
) -> None:
    """List the watched codes, their names, where each comes from, and its watermark.

    Args:
        codes: only these; all that are watched, if none is named
        json: one JSON list
        config: TOML file
    """
    wanted = codes_of(codes) if codes else ()
    finish(_print_list(load_config(config, reading=True), wanted, as_json=json))


async def set_watched(config: Config, codes: Sequence[Code], *, wanted: bool) -> None:
    """Add codes to the live watchlist or exclude them, and print what was done."""
    async with store_of(config) as store:
        before = await sources_of(config, store)
        await store.watchlist.watch(codes, wanted=wanted)
        for code in codes:
            done = "watched" if wanted else "no longer watched"
            if not wanted and code not in before:
                done = (
                    f"was not watched, and is excluded from now on; undo: poller watch add {code}"
                )
            show.say(f"{code} {done}")
        await mention_idle(config, store)


async def _print_list(config: Config, codes: Sequence[Code], *, as_json: bool) -> None:
    """Print the watched codes, or those of `codes` that are, with their sources and watermarks."""
    async with store_of(config, existing=True) as store:
        sources = await sources_of(config, store)
        watermarks = await store.records.watermarks()
        instruments = await store.instruments.instruments(list(sources))
    found = {code: why for code, why in sources.items() if not codes or code in codes}
    names = {code: each.name for code, each in instruments.items()}
    rows = [(c, ", ".join(why), str(watermarks.get(c, "-"))) for c, why in found.items()]
    if as_json:
        listed = [
            {"code": code, "name": names.get(code), "sources": why, "watermark": day}
            for code, why, day in rows
        ]
        show.say_json(json.dumps(listed))
    else:
        cells = [(code, names.get(code) or "-", why, day) for code, why, day in rows]
        show.print_table(("code", "name", "from", "watermark"), cells)
    mention_groups(config)
