"""Prints every new event at least once, also after a pause of its own: python follow.py [URL]"""

import asyncio
import sys

from poller import subscribe


async def main(url: str) -> None:
    async with subscribe(url, group="example") as events:
        async for event in events:
            moved = event.change and event.change.shares
            print(event.type, event.code, event.trading_day, event.record.shares, moved, flush=True)


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "redis://127.0.0.1:6379"))
