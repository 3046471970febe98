"""`make demo`: the service against the simulator, and a subscriber, in one terminal.

Two real processes: what the log says and what a subscriber reads, with nothing in between but the
stream. It ends by itself after `LENGTH` seconds, or with Ctrl-C.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import Final

LENGTH: Final = 30.0
FILLED: Final = 9.0
"""Seconds until the whole demo ends, and until the subscriber joins."""

_INTRODUCTION: Final = """\
The short-interest poller against a simulated OpenD: real wire protocol, official SDK, real
(embedded) Redis server. The budget's half minute is shortened to 3 s.
  1. history of some 40 symbols fills (log lines)      2. after 12 s a release arrives, is swept,
  and each new row is printed as a subscriber sees it   3. after 22 s one symbol is revised
"""
_FURTHER: Final = """
To look further:
  .venv/bin/poller run --simulate          the same, for as long as you like
  .venv/bin/poller tail --from 0           every event (in a second terminal)
  .venv/bin/poller history HK.00700        the vendor page's ten rows
  redis-cli -s state/redis/redis.sock -a "$(cat state/redis/password)" \\
      XREVRANGE short-interest + - COUNT 3
"""


def main() -> int:
    """Run the demo; 0 also after Ctrl-C."""
    sys.stdout.write(_INTRODUCTION)
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="poller-demo-") as state:
        environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("POLLER_")},
            "POLLER_STATE_DIR": state,
            "POLLER_CONFIG": os.devnull,
        }
        command = [sys.executable, "-m", "poller"]
        service = subprocess.Popen([*command, "run", "--simulate"], env=environment)  # noqa: S603
        subscriber = None
        began = time.monotonic()
        try:
            # the 1,800 rows of history would hide everything else: the log tells of them
            while time.monotonic() < began + FILLED and service.poll() is None:
                time.sleep(0.2)
            subscriber = subprocess.Popen([*command, "tail"], env=environment)  # noqa: S603
            while time.monotonic() < began + LENGTH and service.poll() is None:
                time.sleep(0.2)
        except KeyboardInterrupt:
            pass  # both children got it, too
        failed = service.poll()
        for process in filter(None, (subscriber, service)):
            process.send_signal(signal.SIGTERM)
            process.wait(15)
    sys.stdout.write(_FURTHER)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
