"""Opens the store and the gateways of the service in order, and closes them in reverse."""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from poller.delivery.redisoutbox import RedisOutbox
from poller.errors import StoreDown, StoreMisfit
from poller.gateway.logins import logins_of, shared_logins
from poller.gateway.opend import Address, ConnectionChange, OpenD
from poller.gateway.sdk import Sdk
from poller.polling.budget import Budget
from poller.settings.config import Config, Opend
from poller.store.embedded import Embedded, server_of
from poller.store.ports import Ledger
from poller.store.redis_status import RedisStatusStore
from poller.store.redisstore import RedisStore
from poller.telemetry.observe import (
    REDIS,
    GatewayConnection,
    Happened,
    HeartbeatBeat,
    Observe,
    Recovered,
    Trouble,
    dispatcher,
    heartbeat,
    redis_trouble,
)

_PAUSE: Final = 1.0  # seconds between two tries to reach a server that is away


@dataclass(frozen=True)
class Ports:
    """What the components work with: opened by `opened`, or put together by a test."""

    store: RedisStore
    outbox: RedisOutbox
    status_store: RedisStatusStore
    gateways: Sequence[OpenD]
    budgets: dict[str, Budget]
    embedded: Embedded | None


@contextlib.asynccontextmanager
async def opened(
    config: Config, observe: Observe, *, gateways: bool = True, simulated: bool | None = None
) -> AsyncIterator[Ports]:
    """Open store and gateways (not yet connected); waits for a server that is away.

    `simulated`: whether the events to publish are a simulation's; None if none are published.
    """
    async with contextlib.AsyncExitStack() as stack:
        sdk = Sdk(config.state_dir, config.opend[0].rsa_private_key_file)
        stack.callback(sdk.close)
        asked = config.opend if gateways else ()
        starting = list[asyncio.Task[None]]()
        if gateways:
            starting.append(await stack.enter_async_context(_running(sdk.load(), "load the SDK")))
        held = server_of(config.redis.url, config.state_dir)
        url, embedded = await stack.enter_async_context(held)
        store = RedisStore(url, config.redis.namespace, replicas=config.redis.replicas)
        stack.push_async_callback(store.close)
        outbox = RedisOutbox(url, config.redis.namespace)
        stack.push_async_callback(outbox.close)
        status_store = RedisStatusStore(url, config.redis.namespace)
        stack.push_async_callback(status_store.close)
        there = _until_there(store, observe, simulated)
        starting.append(await stack.enter_async_context(_running(there, "wait for Redis")))
        await asyncio.gather(*starting)  # the first failure ends the start at once
        linked = _gateways(asked, sdk, observe)
        budgets = _budgets(config, linked, store.ledger, observe)
        yield Ports(store, outbox, status_store, linked, budgets, embedded)


def _budgets(
    config: Config, gateways: Sequence[OpenD], ledger: Ledger, observe: Observe
) -> dict[str, Budget]:
    """Return the budget of each account."""
    owner = f"{process_name()}-{secrets.token_hex(4)}"
    return {
        account: Budget(
            ledger,
            account,
            owner,
            requests=config.budget.requests,
            period=config.budget.period,
            waiting=partial(observe, HeartbeatBeat(dispatcher(account))),
            logins=logins_of(gateways, account),
        )
        for account in dict.fromkeys(gateway.account for gateway in gateways)
    }


@contextlib.asynccontextmanager
async def _running(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[asyncio.Task[None]]:
    """Run `work` concurrently with the block, and cancel it at the end."""
    task = asyncio.create_task(work, name=name)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)  # the block has raised its error


def address_of(table: Opend) -> Address:
    """Return where a configured OpenD listens."""
    return Address(table.host, table.port, table.account)


def _gateways(tables: Sequence[Opend], sdk: Sdk, observe: Observe) -> list[OpenD]:
    gateways: list[OpenD] = []

    def changed(change: ConnectionChange) -> None:
        _tell_of(observe, change)
        if change.ready:  # and has logged in
            _tell(observe, "accounts", shared_logins(gateways))

    for address in map(address_of, tables):
        tell = partial(_tell, observe, f"state of OpenD {address}")
        gateways.append(OpenD(address, sdk, changed, tell))
    return gateways


def _tell(observe: Observe, subject: str, trouble: str) -> None:
    observe(Trouble(subject, trouble) if trouble else Recovered(subject))


def _tell_of(observe: Observe, change: ConnectionChange) -> None:
    observe(GatewayConnection(change.gateway, change.ready, change.reason, change.rebuilds))
    subject = f"OpenD {change.gateway}"
    if change.ready:
        observe(Recovered(subject))
        observe(Happened(f"{subject}: {change.reason}", (("reconnects", change.rebuilds),)))
    else:
        observe(Trouble(subject, change.reason))


async def _until_there(store: RedisStore, observe: Observe, simulated: bool | None) -> None:  # noqa: FBT001
    with heartbeat(observe, "start") as beat:
        while True:
            beat()
            try:
                server = await store.inspect()
                if simulated is not None:
                    await store.mark.forbid_mixing(simulated=simulated)
            except StoreDown as problem:
                observe(redis_trouble(problem))
                await asyncio.sleep(_PAUSE)
            else:
                observe(Recovered(REDIS))
                observe(Happened("store", (("server", server), ("stream", store.keys.stream))))
                return


def process_name() -> str:
    """Return this process's name in Redis."""
    return f"{socket.gethostname()}-{os.getpid()}"


async def keep_alive(embedded: Embedded, observe: Observe) -> None:
    """Restart the embedded server when it is gone, whichever process started it."""
    while True:
        await asyncio.sleep(_PAUSE)
        try:
            if await embedded.ensure():
                observe(Happened("the embedded server was gone: started again"))
        except (StoreDown, StoreMisfit) as problem:
            observe(Trouble("embedded server", str(problem)))
        else:
            observe(Recovered("embedded server"))
