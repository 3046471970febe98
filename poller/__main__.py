"""`python -m poller` and the console script `poller`."""

import os
import signal

from poller.frozen import frozen_import


def main() -> None:
    """Run one command; from the start, a signal ends it with 0 and without a traceback.

    Importing a command takes up to a second, in which nothing is open. Commands that open something
    handle the signals themselves.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    with frozen_import():
        from poller.cli import main as cli  # noqa: PLC0415  after the signals

    cli.main()


if __name__ == "__main__":
    main()
