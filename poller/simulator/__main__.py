"""`python -m poller.simulator`: runs an OpenD on loopback until SIGINT or SIGTERM."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from poller.markets import all_markets
from poller.model import parse_code
from poller.simulator import Simulator, World
from poller.simulator.replies import NO_RIGHT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m poller.simulator", description=__doc__)
    parser.add_argument("--port", type=int, default=11111, help="0 takes a free one")
    for market in all_markets():
        parser.add_argument(
            f"--{market.name.lower()}",
            type=int,
            default=market.simulation.count,
            help=f"made-up {market.labels.place} symbols",
        )
    parser.add_argument("--code", action="append", default=[], help="a further symbol, by its code")
    parser.add_argument("--seed", type=int, default=1, help="another seed, another world")
    parser.add_argument("--requests", type=int, default=30, help="the limit, per period")
    parser.add_argument("--period", type=float, default=30.0, help="seconds")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds a page takes")
    parser.add_argument("--user", type=int, help="the number of the user it is logged in as")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=[market.name for market in all_markets()],
        help="a market that it says the user has no right to",
    )
    parser.add_argument("--key", type=Path, help="RSA private key (PEM, 1024 bits): encrypt")
    return parser


async def _serve(simulator: Simulator, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await simulator.start(port=port)
    symbols = len(simulator.world.codes())
    sys.stdout.write(f"OpenD simulator on 127.0.0.1:{simulator.port}, {symbols} symbols\n")
    sys.stdout.flush()
    await stop.wait()
    await simulator.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until signalled to stop; exits with a usage error if it cannot serve."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        named = tuple(map(parse_code, chosen.code))
        counts = {each.name: getattr(chosen, each.name.lower()) for each in all_markets()}
        latency = timedelta(seconds=chosen.delay)
        world = World(seed=chosen.seed, made_up=counts, named=named, latency=latency)
        world.codes()
        simulator = Simulator(
            world,
            requests=chosen.requests,
            period=chosen.period,
            rsa_private_key=chosen.key.read_bytes() if chosen.key else None,
        )
        login = simulator.login
        tables = {market.name: market.table for market in all_markets()}
        without = {tables[name]: NO_RIGHT for name in chosen.without}
        user = login.user if chosen.user is None else chosen.user
        simulator.login = replace(login, user=user, rights={**login.rights, **without})
    except (OSError, ValueError) as problem:
        parser.error(str(problem))
    try:
        asyncio.run(_serve(simulator, chosen.port))
    except (OSError, OverflowError) as problem:  # the port's
        parser.exit(2, f"{parser.prog}: {problem}\n")


if __name__ == "__main__":
    main()
