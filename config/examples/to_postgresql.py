"""Writes every event into PostgreSQL, once: python to_postgresql.py [URL] [CONNINFO]

URL: of Redis. CONNINFO: as psql takes it; absent: PGHOST and so on. Needs psycopg[binary].
"""

import asyncio
import sys

import psycopg

from poller import subscribe
from poller.errors import StoreMisfit
from poller.events import StreamEvent

TABLE = """CREATE TABLE IF NOT EXISTS short_interest (
    n bigint GENERATED ALWAYS AS IDENTITY,  -- in the order of the stream; numbers may be missing
    id text PRIMARY KEY,                    -- code, trading day, revision: never used twice
    type text NOT NULL, code text NOT NULL, market text NOT NULL, trading_day date NOT NULL,
    revision integer NOT NULL, observed_at timestamptz NOT NULL, shares numeric, ratio numeric,
    data jsonb NOT NULL)"""
INSERT = """INSERT INTO short_interest (id, type, code, market, trading_day, revision, observed_at,
    shares, ratio, data) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""
NOTIFY = "SELECT pg_notify('short_interest', %s)"  # whoever has said LISTEN short_interest


def row(event: StreamEvent) -> tuple[object, ...]:
    when = (event.trading_day, event.revision, event.observed_at)
    figures = (event.record.shares, event.record.ratio, event.data_json)
    return (event.id, event.type, event.code, event.market.name, *when, *figures)


async def main(url: str, place: str) -> None:
    connection, told = None, ""
    async with subscribe(url, group="postgresql", after="0") as events:  # at first from the oldest
        async for event in events:  # asking for the next one acknowledges the one before
            while True:
                try:
                    if connection is None:
                        connection = await psycopg.AsyncConnection.connect(place, autocommit=True)
                        await connection.execute(TABLE)
                    async with connection.transaction():
                        done = await connection.execute(INSERT, row(event))
                        if done.rowcount:  # it is new: what is to happen once goes in here
                            await connection.execute(NOTIFY, [event.id])
                except psycopg.DataError as problem:  # such as a NUL in what somebody else wrote
                    print(f"passed over {event.id}: {problem}", file=sys.stderr, flush=True)
                except psycopg.OperationalError as problem:  # it is away, or starts
                    if told != (told := str(problem)):
                        print(told, file=sys.stderr, flush=True)
                    connection = None
                    await asyncio.sleep(1)
                    continue
                break


try:
    asyncio.run(main(*sys.argv[1:3], *["redis://127.0.0.1:6379", ""][len(sys.argv) - 1 :]))
except (StoreMisfit, psycopg.Error) as refusal:
    sys.exit(str(refusal))
except KeyboardInterrupt:
    pass
