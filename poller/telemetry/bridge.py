"""Sends what libraries and the interpreter report to the log, one line each and limited in number.

That is `logging`, `warnings`, and uncaught exceptions: in the main thread, in another one, in a
finaliser, in a task of the event loop. Only this project's own programs install it; in a user's
program that subscribes, logging is up to the user.
"""

import errno
import logging
import sys
import threading
import time
import warnings
from asyncio import AbstractEventLoop
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from poller.printable import printable, text_of
from poller.telemetry import log

PAUSE: Final = 60.0
"""Seconds in which a text is written once; the next line says how often it was repeated."""

LINES: Final = 30
"""Most lines of one source in `PAUSE` seconds; further ones are only counted."""

_NO_DESCRIPTORS: Final = {errno.EMFILE, errno.ENFILE}
_MORE_DESCRIPTORS: Final = "raise the limit: ulimit -n, or LimitNOFILE= of the unit"

_KINDS: Final = 200  # texts remembered; a library has a few dozen


@dataclass(slots=True)
class _Seen:
    since: float
    lines: int = 0
    unwritten: int = 0


class Repeats:
    """Decides which lines are written, and counts the others."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[tuple[str, str], _Seen] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, source: str, text: str) -> dict[str, int] | None:
        """Return details to add to a line of this source; None if it must not be written."""
        with self._lock:
            every = self._of(source, "")
            same = self._of(source, text)
            if same.lines or every.lines >= LINES:
                (same if same.lines else every).unwritten += 1
                return None
            counts = {"repeated": same.unwritten, "not_written": every.unwritten}
            same.lines, same.unwritten = 1, 0
            every.lines, every.unwritten = every.lines + 1, 0
            return {name: number for name, number in counts.items() if number}

    def _of(self, source: str, text: str) -> _Seen:
        """Return the counts of the current period; unwritten ones are carried over into it."""
        key, now = (source, text), self._clock()
        seen = self._seen.pop(key, None) or _Seen(now)
        if now >= seen.since + PAUSE:
            seen = _Seen(now, unwritten=seen.unwritten)
        self._seen[key] = seen
        if len(self._seen) > _KINDS:
            self._seen.popitem(last=False)
        return seen


class Bridge(logging.Handler):
    """Writes the lines of libraries and the interpreter; it never raises."""

    def __init__(self, repeats: Repeats | None = None) -> None:
        super().__init__(logging.WARNING)
        self._repeats = repeats or Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line for a record of the standard library's logging."""
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001  arguments that do not fit, or whose `str()` fails
            text = text_of(record.msg)
        problem = record.exc_info[1] if record.exc_info else None
        level: log.Level = "error" if record.levelno >= logging.ERROR else "warning"
        self.report(level, record.name, text_of(record.msg), text, problem)

    def report(
        self,
        level: log.Level,
        source: str,
        template: str,
        text: str,
        problem: BaseException | None = None,
    ) -> None:
        """Write one line unless it repeats; `template`: its text without the arguments."""
        if not log.is_written(level):
            return
        mark = "" if problem is None else log.fingerprint(problem)
        more: dict[str, Any] | None = self._repeats.admit(source, f"{mark} {template[:200]}")
        if more is None:
            return
        if problem is not None:
            more |= {"fingerprint": mark, "exception": log.trace_of(problem)}
        log.write(level, f"{source}: {text}", **more)

    def warned(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: object = None,  # noqa: ARG002
        line: object = None,  # noqa: ARG002
    ) -> None:
        """Write one line for a warning; replaces `warnings.showwarning`."""
        text = f"{category.__name__}: {printable(message, log.TEXT_LIMIT)}"
        where = f"{Path(filename).name}:{lineno}"
        self.report("warning", "warnings", f"{where} {text}", f"{text} ({where})")

    def uncaught(self, kind: type[BaseException], problem: BaseException, _trace: object) -> None:
        """Write what ended the main thread; replaces `sys.excepthook`."""
        text = f"ended by {kind.__name__}, which nobody caught"
        self.report("error", "python", text, text, problem)

    def thread_ended(self, arguments: threading.ExceptHookArgs) -> None:
        """Write what ended a thread; replaces `threading.excepthook`."""
        if issubclass(arguments.exc_type, SystemExit):
            return
        name = arguments.thread.name if arguments.thread else "unknown"
        text = f"thread {name}: ended by {arguments.exc_type.__name__}, which nobody caught"
        self.report("error", "python", text, text, arguments.exc_value)

    def unraisable(self, found: "sys.UnraisableHookArgs") -> None:
        """Write what a finaliser raised; replaces `sys.unraisablehook`."""
        kind = found.exc_type.__name__
        text = f"{found.err_msg or 'ignored, as it came from a finaliser'}: {kind}"
        self.report("error", "python", text, text, found.exc_value)

    def loop_failed(self, _loop: AbstractEventLoop, context: dict[str, Any]) -> None:
        """Write an error that no task awaits; set as the event loop's exception handler."""
        text = text_of(context.get("message") or "an error nobody caught")
        problem = context.get("exception")
        if isinstance(problem, OSError) and problem.errno in _NO_DESCRIPTORS:
            # caused by too many clients, not by a defect: the loop accepts again by itself
            self.report(
                "warning", "asyncio", text, f"{text}: {problem.strerror}; {_MORE_DESCRIPTORS}"
            )
            return
        sources = (context.get(name) for name in ("task", "future", "handle"))
        source = next((each for each in sources if each is not None), None)
        name = getattr(source, "get_name", None)  # only tasks have names
        where = f" ({printable(name())})" if callable(name) else ""
        self.report("error", "asyncio", text, text + where, problem)


def install() -> Bridge:
    """Replace Python's handlers; returns the bridge, whose `loop_failed` an event loop is given."""
    bridge = Bridge()
    logging.raiseExceptions = False  # a failing handler must not disturb the work
    logging.root.handlers = [bridge]
    logging.root.setLevel(logging.WARNING)
    warnings.showwarning = bridge.warned
    sys.excepthook = bridge.uncaught
    sys.unraisablehook = bridge.unraisable
    threading.excepthook = bridge.thread_ended
    return bridge
