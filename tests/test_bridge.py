"""What libraries and the interpreter say: in the same log, one line each, without a secret."""

import base64
import contextlib
import io
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from poller.telemetry.bridge import LINES, PAUSE, Bridge, Repeats
from poller.telemetry.log import configure, fingerprint, write
from poller.telemetry.redaction import Redaction

SECRET = "hunter2/ü+word"  # noqa: S105

PROGRAM = """
import asyncio, gc, logging, sys, threading, warnings
from poller.cli.runner import conclude, finish
from poller.telemetry import log

SECRET = "hunter2/secret"

class Odd:
    def __del__(self):
        raise ValueError(f"finaliser {SECRET}")

async def fails():
    raise ValueError(f"task {SECRET}\\n\\x1b[31mred")

def thread():
    raise ValueError(f"thread {SECRET}")

async def work():
    log.configure(secrets=[SECRET])
    task = asyncio.create_task(fails(), name="forgotten")
    await asyncio.wait([task])
    del task
    gc.collect()
    logging.getLogger("aiohttp.server").error("Error handling %s", SECRET, exc_info=ValueError("x"))
    logging.getLogger("apprise").warning("%d", "not a number")
    logging.getLogger("quiet").info("never seen")
    for n in range(1000):
        logging.getLogger("noisy").warning("again %d", n)
    warnings.warn(f"old {SECRET}\\nline", DeprecationWarning, stacklevel=1)
    one = threading.Thread(target=thread, name="futu-7")
    one.start()
    one.join()
    Odd()
    logging.getLogger("late").critical("the end")

def command():
    finish(work())

conclude(command)
"""


def test_everything_ends_in_the_log() -> None:
    """Tasks, threads, finalisers, warnings and libraries: one line of JSON each, nothing raw."""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", PROGRAM], capture_output=True, check=False
    )
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stderr.decode().splitlines()]
    assert "hunter2" not in done.stderr.decode()
    assert "\x1b" not in done.stderr.decode()
    said = [(line["level"], line["event"]) for line in lines]
    assert said == [
        ("error", "asyncio: Task exception was never retrieved (forgotten)"),
        ("error", "aiohttp.server: Error handling [secret]"),
        ("warning", "apprise: %d"),
        ("warning", "noisy: again 0"),
        ("warning", r"warnings: DeprecationWarning: old [secret]\nline (<string>:29)"),
        ("error", "python: thread futu-7: ended by ValueError, which nobody caught"),
        ("error", "python: ignored, as it came from a finaliser: ValueError"),
        ("error", "late: the end"),
    ]
    for line in (lines[0], lines[1], lines[5], lines[6]):
        assert len(line["fingerprint"]) == 8
        assert "ValueError" in line["exception"]


def test_what_ends_the_main_thread_is_a_line() -> None:
    """Nothing of Python's own traceback reaches the terminal, nor a secret in it."""
    program = (
        "from poller.telemetry import bridge, log\n"
        "bridge.install()\n"
        "log.configure(secrets=['hunter2'])\n"
        "raise ValueError('main hunter2')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert json.loads(line)["event"] == "python: ended by ValueError, which nobody caught"
    assert "main [secret]" in json.loads(line)["exception"]


def test_a_subscriber_keeps_its_own_logging() -> None:
    """A program that imports what subscribes finds its hooks and handlers as they were."""
    program = (
        "import logging, sys, threading, warnings\n"
        "def hooks(): return (sys.excepthook, threading.excepthook, warnings.showwarning,\n"
        "    sys.unraisablehook, list(logging.root.handlers), logging.raiseExceptions)\n"
        "before = hooks()\n"
        "from poller import subscribe\n"
        "sys.exit(before != hooks())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@contextlib.contextmanager
def written() -> Iterator[list[dict[str, Any]]]:
    """Yield the lines written meanwhile, once they are."""
    lines: list[dict[str, Any]] = []
    with contextlib.redirect_stderr(io.StringIO()) as log:
        configure(secrets=[SECRET])
        yield lines
    lines += map(json.loads, log.getvalue().splitlines())


class Clock:
    """A clock that only the test advances."""

    now = 0.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now


def record(source: str, text: str, *arguments: object) -> logging.LogRecord:
    """Return a record of the standard library's logging."""
    return logging.LogRecord(source, logging.WARNING, "", 0, text, arguments, None)


def test_a_repeated_text_is_counted() -> None:
    """The first is written at once; the next one, a period later, says how many came between."""
    clock = Clock()
    with written() as lines:
        bridge = Bridge(Repeats(clock))
        for _ in range(100):
            bridge.emit(record("lib", "again %s", "x"))
        clock.now = PAUSE
        bridge.emit(record("lib", "again %s", "y"))
        clock.now = 3 * PAUSE
        bridge.emit(record("lib", "again %s", "z"))
    assert [(line["event"], line.get("repeated")) for line in lines] == [
        ("lib: again x", None),
        ("lib: again y", 99),
        ("lib: again z", None),
    ]


def test_a_source_is_bounded_however_different_its_texts() -> None:
    """Lines over the limit are counted and the count written; another source is not affected."""
    clock = Clock()
    with written() as lines:
        bridge = Bridge(Repeats(clock))
        for n in range(1_000):
            bridge.emit(record("lib", f"text {n}"))
        bridge.emit(record("other", "heard"))
        clock.now = PAUSE
        bridge.emit(record("lib", "later"))
    assert len(lines) == LINES + 2
    assert lines[-2]["event"] == "other: heard"
    assert lines[-1]["not_written"] == 1_000 - LINES


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.floats(0, 90))))
def test_no_line_is_lost_without_a_count(said: list[tuple[str, str, float]]) -> None:
    """Written lines and those reported as not written add up to all lines."""
    clock = Clock()
    repeats = Repeats(clock)
    told = 0
    for source, text, seconds in said:
        clock.now += seconds
        more = repeats.admit(source, text)
        told += 0 if more is None else 1 + sum(more.values())
    clock.now += PAUSE
    for source in "ab":
        for text in "xyz":
            told += sum((repeats.admit(source, text) or {}).values())
    assert told == len(said)


class Bad:
    """A value whose texts cannot be had."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no")

    __repr__ = __str__


def test_a_faulty_detail_breaks_nothing() -> None:
    """Whatever a detail is, there is one line of valid JSON."""
    with written() as lines:
        write(
            "info", "odd", bad=Bad(), huge=10**5_000, number=float("nan"), raw=b"\x9b", end="\ud800"
        )
        Bridge().emit(record("lib", "%s", Bad()))
        Bridge().emit(record("lib", Bad()))  # type: ignore[arg-type]
        raised = threading.ExceptHookArgs((ValueError, None, None, None))
        Bridge().thread_ended(raised)
    assert len(lines) == 4
    assert lines[0]["bad"] == "<Bad that cannot be shown>"
    assert lines[0]["number"] == "nan"
    assert lines[0]["end"] == r"\ud800"


def test_json_lines_hold_nothing_to_obey() -> None:
    """C1 and bidirectional characters, which JSON itself lets through, are escaped there, too."""
    with contextlib.redirect_stderr(io.StringIO()) as log:
        configure()
        write("info", "a\x9b\u202eb", detail="c\x85\u2066d\ue000", exception="e\x9b\nf\u200f")
    line = log.getvalue().rstrip("\n")
    assert line.isprintable()
    assert json.loads(line)["event"] == r"a\x9b\u202eb"
    assert json.loads(line)["exception"] == "e\\x9b\nf\\u200f"


def test_a_closed_log_is_no_reason_to_stop() -> None:
    """At the end of a process its stderr may be gone."""
    closed = io.StringIO()
    with contextlib.redirect_stderr(closed):
        configure()
    closed.close()
    write("error", "nobody hears it")


@given(st.text(min_size=6), st.binary(max_size=7), st.binary(max_size=7))
def test_a_secret_is_masked_however_it_is_spelt(secret: str, before: bytes, after: bytes) -> None:
    """As it is, percent-encoded, and in base64 at any place of something longer."""
    secret = f"hunter2{secret}"
    hide = Redaction([secret])
    data = secret.encode(errors="surrogatepass")
    encoded = quote(data, safe="")
    small = re.sub("%..", lambda escape: escape[0].lower(), encoded)
    for spelt in (secret, encoded, small, quote(data), repr(secret), json.dumps(secret)):
        assert "hunter2" not in hide(f"<{spelt}>", 10_000)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        shown = hide(encode(before + data + after).decode(), 10_000)
        assert "[secret]" in shown
        assert len(shown.replace("[secret]", "")) <= len(encode(before + b"xx" + after + b"xx"))


def test_a_secret_written_with_escapes_is_masked_without_them() -> None:
    """As a password in a URL, which a library logs as it sends it."""
    hide = Redaction(["hunter2%2Fand%20more"])
    assert hide("it refuses hunter2/and more", 100) == "it refuses [secret]"


@given(st.integers(0, 60))
def test_a_cut_shows_no_part_of_a_secret(place: int) -> None:
    """Where a text is cut in the middle of a secret, that is left out whole."""
    hide = Redaction(["hunter2-and-more"])
    shown = hide("." * place + "hunter2-and-more" + "." * 100, 40)
    assert "hunt" not in shown
    assert len(shown) <= 40


def test_a_fingerprint_stands_for_a_place() -> None:
    """The same error at the same place has the same one, whatever its text; another has not."""

    def failed(kind: type[Exception], text: str) -> str:
        try:
            raise kind(text)
        except kind as problem:
            return fingerprint(problem)

    assert failed(ValueError, "a") == failed(ValueError, "b")
    assert failed(ValueError, "a") != failed(TypeError, "a")
