"""`make demo`: the service against the simulator, and a subscriber, in one terminal.

Two real processes: what the log says and what a subscriber reads, with nothing in between but the
stream. It ends by itself after `LENGTH` seconds, or with Ctrl-C.
"""

import base64
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from standardwebhooks import Webhook, WebhookVerificationError

_SECRET: Final = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()

LENGTH: Final = 30.0
FILLED: Final = 9.0
"""Seconds until the whole demo ends, and until the subscriber joins."""

_INTRODUCTION: Final = """\
The short-interest poller against a simulated OpenD: real wire protocol, official SDK, real
(embedded) Redis server. The budget's half minute is shortened to 3 s.
  1. history of some 40 symbols fills (log lines)      2. after 12 s a release arrives, is swept,
  and each new row is printed as a subscriber sees it   3. after 22 s one symbol is revised
A local webhook receiver verifies every delivery's signature and prints it, too.
"""
_FURTHER: Final = """
To look further:
  .venv/bin/poller run --simulate          the same, for as long as you like
  .venv/bin/poller tail --from 0           every event (in a second terminal)
  .venv/bin/poller history HK.00700        the vendor page's ten rows
  redis-cli -s state/redis/redis.sock -a "$(cat state/redis/password)" \\
      XREVRANGE short-interest + - COUNT 3
"""


class _Receiver(BaseHTTPRequestHandler):
    """An endpoint's server as a user would write it: verify, print, answer 204."""

    protocol_version = "HTTP/1.1"
    signer = Webhook(_SECRET)

    def do_POST(self) -> None:
        """Take one delivery."""
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            told = self.signer.verify(body, dict(self.headers))
        except WebhookVerificationError as problem:
            line, status = f"webhook   refused: {problem}", 401
        else:
            line, status = f"webhook   verified {self.headers['webhook-id']} {told['type']}", 204
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
        """Print nothing beside."""


def main() -> int:
    """Run the demo; 0 also after Ctrl-C."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        try:
            return _show(f"http://127.0.0.1:{receiver.server_port}/")
        finally:
            receiver.shutdown()


def _show(endpoint: str) -> int:
    sys.stdout.write(_INTRODUCTION)
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="poller-demo-") as state:
        environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("POLLER_")},
            "POLLER_STATE_DIR": state,
            "POLLER_CONFIG": os.devnull,
            "POLLER_WEBHOOKS__0__NAME": "demo",
            "POLLER_WEBHOOKS__0__URL": endpoint,
            "POLLER_WEBHOOKS__0__SECRET": _SECRET,
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
