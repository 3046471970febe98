"""Kill -9 at random moments: the stream equals the simulator's truth at the end.

Twenty kills here; `CHAOS_KILLS=1000 make chaos` for more. The seed is printed on failure.
"""

import asyncio
import os
import random
from datetime import timedelta
from pathlib import Path

import pytest

from poller.simulator import Simulator, World
from tests.service import Service, entries, later, now, store_of, with_rows

KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))


@pytest.mark.timeout(120 + 5 * KILLS)
async def test_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    """Whatever is killed or cut: no id twice, nothing missing, budget held, watermark newest."""
    chance = random.Random(SEED)
    # releases far in the past leave room for a new day per kill
    world = World(hk=4, us=2, without_rows=0.0, history=20, shift=timedelta(days=250))
    codes = world.codes()[1:]
    async with Simulator(world, requests=30, period=1.0) as opend:
        service = Service(tmp_path, opend.port, ",".join(codes))
        service.settings = {"POLLER_WATCHLIST__HISTORY": "1000"}
        async with store_of(service) as store:
            for _ in range(KILLS):
                await service.start()
                code = chance.choice(codes)
                rows = opend.world.records(code, now())
                if rows[0].day < now().date() - timedelta(days=2):
                    opend.world = with_rows(opend.world, code, (later(rows[0], days=1), *rows))
                if chance.random() < 0.3:
                    opend.faults.cut = chance.randrange(1, 200)
                await asyncio.sleep(chance.uniform(0.3, 2.5))
                if chance.random() < 0.3:
                    opend.faults.kick()
                await service.kill()
            opend.faults.cut = None
            await service.start()
            truth = {c: [r.timestamp_str for r in opend.world.records(c, now())] for c in codes}
            found = await entries(store, sum(map(len, truth.values())))
            watermarks = await store.watermarks()
        assert await service.stop() == 0
        ids = [entry.fields["id"] for entry in found]
        assert len(ids) == len(set(ids)), f"seed {SEED}"
        for code, days in truth.items():
            told = [e.fields["trading_day"] for e in found if e.fields["code"] == code]
            assert told == list(reversed(days)), f"{code}, seed {SEED}"
            assert str(watermarks[code]) == days[0]
        assert opend.most_in_window() <= 30, f"seed {SEED}"
