"""Whatever the locale: files are read as UTF-8, and what a terminal cannot show is escaped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.machine import scaled

LOCALES = {
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "gb18030": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "gb18030"},
    "big5": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "big5hkscs"},
}
"""Environments whose encoding is not UTF-8; the C locale is the one every machine has."""

HOUSE = Path(__file__).parents[1] / "poller"


def command(*words: str) -> list[str]:
    """Return a Python that tells of every text file whose encoding the locale decides."""
    return [sys.executable, "-X", "warn_default_encoding", "-W", "always", *words]


def environment(folder: Path, locale: str) -> dict[str, str]:
    """Return a locale, and a service of its own."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("POLLER_", "PYTHON", "LC_"))}
    settings = {"POLLER_CONFIG": os.devnull, "POLLER_STATE_DIR": str(folder / "state")}
    return {**plain, **settings, "POLLER_WEB__PORT": "0", **LOCALES[locale]}


def ours(text: bytes) -> list[str]:
    """Return the warnings of encodings that lead to the package."""
    lines = text.decode(errors="replace").splitlines()
    return [line for line in lines if "EncodingWarning" in line and str(HOUSE) in line]


def run(folder: Path, locale: str, *words: str) -> tuple[int, bytes, bytes]:
    """Run Python to its end; returns its exit code, stdout and stderr."""
    done = subprocess.run(
        command(*words),
        env=environment(folder, locale),
        capture_output=True,
        timeout=scaled(60),
        check=False,
    )
    assert ours(done.stderr) == []
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("locale", LOCALES)
def test_what_is_imported_and_shown_needs_no_locale(tmp_path: Path, locale: str) -> None:
    """A user's program gets `subscribe`, and the command line its help."""
    code = (
        "from poller.store.redisstore import RedisStore\n"
        "from poller.delivery.redisoutbox import RedisOutbox\n"
        "from poller import subscribe\n"
        "from poller.subscriber.redisgroup import RedisGroup\n"
        "RedisStore('redis://127.0.0.1:1', 'n')\n"
        "RedisOutbox('redis://127.0.0.1:1', 'n')\n"
        "RedisGroup('redis://127.0.0.1:1', 'n', 'g', 'r')\n"
    )
    assert run(tmp_path, locale, "-c", code)[0] == 0
    ended, out, _ = run(tmp_path, locale, "-m", "poller", "--help")
    assert ended == 0
    assert b"Usage: poller" in out


def test_what_cannot_be_shown_is_escaped(tmp_path: Path) -> None:
    """A refusal that names a user's own characters is ASCII, and no traceback."""
    code, _, err = run(tmp_path, "ascii", "-m", "poller", "history", "HK.騰訊😀é")
    assert code == 2
    assert err.isascii()
    assert b"Traceback" not in err
    assert b"is not a code" in err


def test_a_line_of_json_stays_json(tmp_path: Path) -> None:
    """On stdout and stderr, though the encoding lacks its characters."""
    code = (
        "from poller.cli import stdio; import json, sys; stdio.prepare()\n"
        r"text = json.dumps({'name': '\u9a30\u8a0a \xe9 \U0001f600 \udc80'}, ensure_ascii=False)"
        "\n"
        "print(text); print(text, file=sys.stderr)"
    )
    _, out, err = run(tmp_path, "ascii", "-c", code)
    for line in (out, err.splitlines()[-1]):
        assert json.loads(line.decode("ascii")) == {"name": "騰訊 é 😀 \udc80"}


@pytest.mark.parametrize("locale", ["ascii", "gb18030"])
def test_the_service_runs_in_every_locale(tmp_path: Path, locale: str) -> None:
    """It starts, polls, and ends, and opens no text file in the locale's encoding."""
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command("-m", "poller", "run", "--simulate"),
            env=environment(tmp_path, locale),
            stderr=stderr,
        )
    try:
        until = time.monotonic() + scaled(60)
        while b'"published"' not in log.read_bytes():
            assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
            assert time.monotonic() < until
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(scaled(30)) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert ours(log.read_bytes()) == []
    assert b"Traceback" not in log.read_bytes()
