"""`python -m tests.stepped …`: the poller, whose loop names the steps that take long.

A step is what the loop does between two looks for news: then nothing else has its turn. Counted is
the processor time of the loop's own thread, so a busy machine does not make a step longer. Each one
over the limit is a line on stderr, with what was under way.
"""

import asyncio
import json
import selectors
import sys
import threading
import time
import traceback
from typing import Final

from poller.cli.main import main

LIMIT: Final = 0.5
"""Seconds of processor time; an honest step takes 0.1, or 0.3 where five others want the core."""

LONG: Final = "a long step"
_LOOK: Final = 0.02


class Steps(selectors.DefaultSelector):
    """A selector that knows when the loop left it, and when it comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.began: float | None = None
        self.place = ""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for news, as the loop asks."""
        if self.began is not None and (took := time.thread_time() - self.began) > LIMIT:
            told = {"event": LONG, "seconds": round(took, 3), "place": self.place}
            sys.stderr.write(json.dumps(told) + "\n")
        self.began = None
        try:
            return super().select(timeout)
        finally:
            self.place, self.began = "", time.thread_time()


def watch(steps: Steps, thread: int) -> None:
    """Note where a long step is; one inside C alone is told without its place."""
    clock = time.pthread_getcpuclockid(thread)
    while True:
        time.sleep(_LOOK)
        began = steps.began
        if began is not None and time.clock_gettime(clock) - began > LIMIT / 2:
            stack = traceback.extract_stack(sys._current_frames()[thread])  # noqa: SLF001
            steps.place = " > ".join(f"{f.filename}:{f.lineno}" for f in stack[-12:])


class Policy(asyncio.DefaultEventLoopPolicy):
    """Gives the program a loop that is watched."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return it."""
        steps = Steps()
        threading.Thread(target=watch, args=(steps, threading.get_ident()), daemon=True).start()
        return asyncio.SelectorEventLoop(steps)


if __name__ == "__main__":
    asyncio.set_event_loop_policy(Policy())
    main()
