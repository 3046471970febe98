"""`python -m poller` and the console script `poller`."""

import os
import signal
import sys

from poller.frozen import frozen_import

_SERVICES = frozenset({"run", "poll", "deliver", "web", "mcp"})


def main() -> None:
    """Run one command; from the start, a signal ends it without a traceback.

    Importing a command takes up to a second, in which nothing is open. Commands that open something
    handle the signals themselves. A service ends with 0, another command with 128 + the signal.
    """
    serves = not _SERVICES.isdisjoint(sys.argv[1:2])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os._exit(0 if serves else 128 + number))
    with frozen_import():
        from poller.cli import main as cli  # noqa: PLC0415  after the signals

    cli.main()


if __name__ == "__main__":
    main()
