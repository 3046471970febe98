"""Prints every new event at least once, also after a pause of its own: python follow.py [URL]

URL: whatever `redis.url` takes; of the embedded server unix://:PASSWORD@/path/of/redis.sock
"""

import asyncio
import sys

from poller import subscribe
from poller.errors import StoreMisfit


async def main(url: str) -> None:
    # the first run of a group begins with what is yet to come (after="0": with all there is)
    async with subscribe(url, group="example") as events:
        async for event in events:
            moved = event.change and event.change.shares
            print(event.type, event.code, event.trading_day, event.record.shares, moved, flush=True)


try:
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "redis://127.0.0.1:6379"))
except StoreMisfit as refusal:
    sys.exit(str(refusal))
except KeyboardInterrupt:
    pass
