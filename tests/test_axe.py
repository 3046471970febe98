"""axe, which knows the accessibility guidelines by heart, finds nothing serious on the page."""

from datetime import date
from pathlib import Path

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

from poller.model import Code, Instrument
from tests.desk import HK, US, desk
from tests.machine import needs
from tests.service import until
from tests.test_page import CHROMIUM, browser

pytestmark = needs(CHROMIUM)

SIZES = [("light", 1440), ("dark", 360), ("dark", 1440), ("light", 360)]
IMPACTS = {"serious", "critical"}


async def violations(window: Page, *sizes: tuple[str, int]) -> list[str]:
    """Return what axe finds serious or critical in the page that is shown, at these sizes."""
    found = []
    for scheme, width in sizes:
        await window.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        await window.set_viewport_size({"width": width, "height": 900})
        results = await Axe().run(window)
        found += [
            f"{scheme}, {width} px: {each['id']}: {node['html']}"
            for each in results.response["violations"]
            if each["impact"] in IMPACTS
            for node in each["nodes"]
        ]
    return found


async def test_axe_finds_nothing_serious(tmp_path: Path) -> None:
    """With a new report, troubles and badges; a symbol of each market, a report, the login."""
    bare = Code("HK.00001")
    async with desk(tmp_path, HK, US, bare) as made:
        await made.publish(HK, *(0 if n == 20 else 1_000_000 + n for n in range(28)), 900_000)
        await made.publish(HK, 1_000_027, 900_001)
        await made.publish(US, *range(5_000_000, 5_030_000, 1000))
        await made.shows(HK, 900_001)
        await made.shows(US, 5_029_000)
        await made.store.instruments.save_instruments({HK: Instrument("TENCENT", 2**40, 2**39)})
        await until(lambda: bool(made.sources.overview.rows[HK].name))
        await made.raw.xgroup_create("short-interest", "webhook:desk", "$")
        await made.report(troubles={f"{HK} quarantine": "a figure awaits", "webhook desk": "503"})
        await made.detected(HK, date(2026, 11, 13))
        async with browser() as (window, _):
            for path, sizes in (
                ("", SIZES),
                (f"/symbols/{HK}", SIZES[:2]),
                (f"/symbols/{US}", SIZES[2:3]),
                ("/releases/HK", SIZES[2:]),
                ("/login", SIZES[1:2]),
            ):
                await window.goto(made.url + path)
                assert await violations(window, *sizes) == [], path
