"""The same POSTs as jobs of arq or saq: `python bench_jobs.py arq|saq SOCKET URL JOBS AT_ONCE`.

A program of its own, run by a Python that has them: arq wants an older redis-py than the project.
Prints jobs a second, from the first POST to the last, with everything queued before. Job results
are not kept, and polling pauses are cut down, so that neither pays for what it would not need.
"""

# mypy: ignore-errors
import asyncio
import sys
import time

import aiohttp


async def post(session: aiohttp.ClientSession, url: str, body: bytes, ended: list[float]) -> None:
    """Do what a job is there for."""
    async with session.post(url, data=body) as response:
        await response.read()
    ended.append(time.perf_counter())


async def with_arq(socket: str, url: str, jobs: int, at_once: int) -> list[float]:
    """Work through the jobs with an arq worker."""
    from arq import create_pool, func  # noqa: PLC0415  the other is not needed
    from arq.connections import RedisSettings  # noqa: PLC0415  the other is not needed
    from arq.worker import Worker  # noqa: PLC0415  the other is not needed

    settings, ended = RedisSettings(unix_socket_path=socket), []
    pool = await create_pool(settings)
    for n in range(jobs):
        await pool.enqueue_job("job", f'{{"n":{n}}}')
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def job(_: object, body: str) -> None:
            await post(session, url, body.encode(), ended)

        worker = Worker(
            [func(job, name="job", keep_result=0)],
            redis_pool=pool,
            burst=True,
            max_jobs=at_once,
            poll_delay=0.001,
            handle_signals=False,
        )
        await worker.async_run()
        await worker.close()
    return ended


async def with_saq(socket: str, url: str, jobs: int, at_once: int) -> list[float]:
    """Work through the jobs with a saq worker."""
    from redis.asyncio import Redis  # noqa: PLC0415  the other is not needed
    from saq import Worker  # noqa: PLC0415  the other is not needed
    from saq.queue.redis import RedisQueue  # noqa: PLC0415  the other is not needed

    queue, ended = RedisQueue(Redis(unix_socket_path=socket)), []
    await queue.connect()
    for n in range(jobs):
        await queue.enqueue("job", body=f'{{"n":{n}}}', ttl=-1)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def job(_: object, *, body: str) -> None:
            await post(session, url, body.encode(), ended)

        worker = Worker(queue, functions=[("job", job)], concurrency=at_once)
        working = asyncio.create_task(worker.start())
        while len(ended) < jobs:
            await asyncio.sleep(0.01)
        await worker.stop()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    return ended


def main() -> None:
    """Print jobs a second."""
    kind, socket, url, jobs, at_once = sys.argv[1:]
    work = {"arq": with_arq, "saq": with_saq}[kind]
    ended = asyncio.run(work(socket, url, int(jobs), int(at_once)))
    sys.stdout.write(f"{(len(ended) - 1) / (max(ended) - min(ended))}\n")


if __name__ == "__main__":
    main()
