"""Files that somebody else wrote: what is read, and how everything else is refused."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from Crypto.PublicKey import ECC, RSA
from hypothesis import given
from hypothesis import strategies as st

from poller.errors import ConfigError
from poller.gateway.rsakey import problem_of_key
from poller.model import Code
from poller.settings import codefile, credentials, sources
from poller.settings.codefile import MOST_CODES, MOST_PROBLEMS, read_codes
from poller.settings.config import load
from poller.textfile import UnusableFile, decoded, read_bytes, read_text
from tests.machine import scaled

HK, US = Code("HK.00700"), Code("US.AAPL")
VISITOR = "a-token-that-is-long-enough-for-anybody"
WORD = "x"
LIMIT = 1000


def refusal(path: Path, *, pipe: bool = False) -> str:
    """Return how a file is refused."""
    with pytest.raises(UnusableFile) as caught:
        read_text(path, limit=LIMIT, pipe=pipe)
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        ("HK.00700\n腾讯".encode("gbk"), 2, "GBK"),
        ("HK.00700\r\n\r\n# 騰訊".encode("big5"), 3, "GBK, Big5"),
        ("# café".encode("latin-1"), 1, "Latin-1"),
        (b"\xef\xbb\xbfa\nb\n\xff", 3, "byte 0xff"),
        ("HK.00700".encode("utf-16"), 1, "UTF-16"),
        (b"\xfe\xff" + "HK.00700".encode("utf-16-be"), 1, "UTF-16"),
        ("HK.00700".encode("utf-32"), 1, "UTF-32"),
        (b"\x00\x00\xfe\xff" + "HK.00700".encode("utf-32-be"), 1, "UTF-32"),
        ("a\nHK.00700".encode("utf-16-le"), 1, "NUL"),
        (b"HK.00700\n\0\0\0\0", 2, "NUL"),
    ],
)
def test_what_is_not_utf_8_is_named_with_its_line(data: bytes, place: int, words: str) -> None:
    """The line is the one an editor shows, and the fix is in the text."""
    with pytest.raises(UnusableFile) as caught:
        decoded(Path("list"), data)
    text = str(caught.value)
    assert text.startswith(f"list:{place}: ")
    assert words in text
    assert "save it as UTF-8" in text


@given(st.binary(max_size=200))
def test_bytes_become_text_or_the_one_error(data: bytes) -> None:
    """Whatever the bytes: a text without its mark, or UnusableFile in one line."""
    try:
        text = decoded(Path("f"), data)
    except UnusableFile as problem:
        text = ""
        line = str(problem)
    else:
        line = ""
        assert text.encode() == data.removeprefix(b"\xef\xbb\xbf")
    assert len(line.splitlines()) <= 1


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.symlink_to("/dev/zero"), "is a device: name a regular file"),
        (lambda path: path.symlink_to("/dev/full"), "is a device"),
        (_pipe, "is a pipe: name a regular file"),
        (_socket, "is a socket: name a regular file"),
        (Path.mkdir, "is a directory: name a regular file"),
        (lambda path: path.symlink_to(path.parent / "none"), "there is no such file"),
        (lambda path: path.symlink_to(path), "cannot be read: Too many levels"),
        (_sparse, "has 1,073,741,824 bytes, more than the 0 KiB"),
        (lambda path: path.symlink_to("/proc/self/maps"), "larger than"),
        (lambda path: path.write_bytes(b"x" * (LIMIT + 1)), "has 1,001 bytes"),
    ],
    ids=["zero", "full", "pipe", "socket", "folder", "dangling", "loop", "1 GB", "proc", "limit"],
)
def test_what_is_no_small_file_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    """No more than the limit is read, nothing is waited for, and the line names the file."""
    path = tmp_path / "file"
    make(path)
    text = refusal(path)
    assert text.startswith(f"{path}: ")
    assert words in text


def test_a_path_that_is_none_is_refused() -> None:
    """Neither a NUL nor a component that is too long is more than a refusal."""
    assert "not a path" in refusal(Path("a\0b"))
    assert "too long" in refusal(Path("a" * 5000))


@pytest.mark.parametrize("count", [0, 1, LIMIT])
def test_up_to_the_limit_all_of_it_is_read(tmp_path: Path, count: int) -> None:
    """The limit itself is allowed."""
    (tmp_path / "f").write_bytes(b"x" * count)
    assert len(read_bytes(tmp_path / "f", limit=LIMIT)) == count


def test_the_null_device_is_an_empty_file() -> None:
    """`POLLER_CONFIG=/dev/null` means the defaults."""
    assert read_text(Path(os.devnull), limit=LIMIT) == ""


def test_a_pipe_is_read_to_its_end_where_it_is_allowed(tmp_path: Path) -> None:
    """`<(…)` works, also when its writer comes late and pauses; an empty one is refused."""
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write(text: bytes) -> None:
        with path.open("wb", buffering=0) as pipe:
            pipe.write(text[:3])
            time.sleep(0.05)
            pipe.write(text[3:])

    for text in (b"\xef\xbb\xbfsecret", b""):
        writer = threading.Thread(target=write, args=[text])
        writer.start()
        if text:
            assert read_text(path, limit=LIMIT, pipe=True) == "secret"
        else:
            assert "held nothing" in refusal(path, pipe=True)
        writer.join()


def test_a_pipe_nobody_writes_to_is_given_up(tmp_path: Path) -> None:
    """It is waited for during some seconds, and then refused."""
    os.mkfifo(tmp_path / "pipe")
    began = time.monotonic()
    assert "did not end within 5 s" in refusal(tmp_path / "pipe", pipe=True)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("text", "codes", "places"),
    [
        ("\ufeffHK.00700\nUS.AAPL", [HK, US], []),
        ("HK.00700\r\nUS.AAPL\r\n", [HK, US], []),
        ("HK.00700\rUS.AAPL\r", [HK, US], []),
        ("HK.00700\n\ufeffUS.AAPL\n", [HK, US], []),  # two files, put together
        ("\u2028HK.00700\u0085\n\fUS.AAPL\u2029\v\n", [HK, US], []),
        ("# of\u2028mine\nHK.00700 # 腾讯\u0085US.AAPL\n", [HK], []),
        ("HK.00700\u2028US.AAPL\nHK.1", [], [1, 2]),
        (f"{'x' * 100_000}\nHK.00700\n", [HK], [1]),
    ],
)
def test_the_lines_of_a_list_are_an_editors(
    tmp_path: Path, text: str, codes: list[Code], places: list[int]
) -> None:
    """Line ends of every system count; other separators only as white space around a code."""
    path = tmp_path / "list"
    path.write_text(text, encoding="utf-8", newline="")
    found, problems = read_codes(path)
    assert list(found) == codes
    assert [line.removeprefix(f"{path}:").partition(":")[0] for line in problems] == [
        str(place) for place in places
    ]
    assert all(len(line) < 300 + len(str(path)) for line in problems)


def test_a_list_is_bounded(tmp_path: Path) -> None:
    """So many codes are taken and so many lines named; the rest is counted."""
    path = tmp_path / "list"
    codes = [f"US.A{number}" for number in range(MOST_CODES + 100)]
    path.write_text("\n".join(codes), encoding="utf-8")
    found, problems = read_codes(path)
    assert list(found) == codes[:MOST_CODES]
    assert len(problems) == MOST_PROBLEMS + 1
    assert "a source may have 50,000 codes" in problems[0]
    assert problems[-1].endswith("and 90 more lines")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = " + "[" * 3000 + "]" * 3000, "nested more than 20 deep"),
        ("a = " + "[" * 30 + "]" * 30, "nested more than 20 deep"),
        (".".join("a" * 3000) + " = 1", "nested more than 20 deep"),
        (".".join("a" * 400_000) + " = 1", "nested more than 20 deep"),
        ("[[ " + "'a' . " * 150_000 + "b]]", "nested more than 20 deep"),
        ("a = {b = 1, " + ".".join("a" * 400_000) + " = 1}", "nested more than 20 deep"),
        ("a" * 1_000_000, "is not TOML"),
        ("web.port = 0x" + "f" * 5000, "web.port"),
        ("budget.requests = 0x" + "f" * 5000, "give 1e+06 or less"),
        ("a = " + "9" * 5000, "is not TOML"),
        ("state_dir = '\x0c'", "is not TOML"),
        ("a = 1\0", "NUL"),
        ("log_level = 'info'\r", "is not TOML"),
    ],
)
def test_a_configuration_beyond_bounds_is_refused_in_a_line(
    tmp_path: Path, text: str, words: str
) -> None:
    """Neither depth nor length nor an odd character ends in anything but a quick refusal."""
    file = tmp_path / "poller.toml"
    file.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(str(file))
    assert words in caught.value.problems[0]


def test_a_variable_beyond_bounds_is_refused_in_a_line() -> None:
    """What begins like JSON is bounded, too."""
    for text in ("[" * 100_000, "[" * 30 + "]" * 30):
        with pytest.raises(ConfigError) as caught:
            load(None, {"POLLER_WATCHLIST__CODES": text})
        assert len(str(caught.value)) < 500


def test_a_byte_order_mark_is_accepted_everywhere(tmp_path: Path) -> None:
    """In the TOML file, in a secret and in a list."""
    mark = b"\xef\xbb\xbf"
    (tmp_path / "token").write_bytes(mark + b"a-token-that-is-long-enough-for-anybody\r\n")
    (tmp_path / "list").write_bytes(mark + b"US.AAPL\r\n")
    file = tmp_path / "poller.toml"
    text = f"[watchlist]\r\nfiles = ['{tmp_path}/list']\r\n[web]\r\ntoken_file = '{tmp_path}/token'"
    file.write_bytes(mark + text.encode())
    config = load(file, {})
    assert config.web.token is not None
    assert config.web.token.get_secret_value() == "a-token-that-is-long-enough-for-anybody"
    assert read_codes(config.watchlist.files[0]) == ((US,), [])


def test_each_kind_of_file_has_its_bound(tmp_path: Path) -> None:
    """Larger ones are refused by their size, where they are named."""
    sizes = {
        "list": codefile.LARGEST_WATCHLIST,
        "token": credentials.LARGEST_SECRET,
        "poller.toml": sources.LARGEST_CONFIG,
    }
    for name, most in sizes.items():
        (tmp_path / name).write_bytes(b"#" * (most + 1))
    with pytest.raises(ConfigError, match=r"1,048,577 bytes, more than the 1 MiB"):
        load(tmp_path / "poller.toml", {})
    variables = {
        "POLLER_WATCHLIST__FILES": str(tmp_path / "list"),
        "POLLER_WEB__TOKEN_FILE": str(tmp_path / "token"),
    }
    with pytest.raises(ConfigError) as caught:
        load(None, variables)
    assert "more than the 4 MiB that are read" in str(caught.value)
    assert "more than the 64 KiB that are read" in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "folder", "told"), [(0o644, 0o755, True), (0o640, 0o755, False), (0o644, 0o700, False)]
)
def test_a_secret_all_can_read_is_a_warning(mode: int, folder: int, *, told: bool) -> None:
    """With the fix; not where its group or a directory above keeps the others out."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:  # pytest's own is closed to others
        Path(made).chmod(folder)
        secret = Path(made) / "token"
        secret.write_text(VISITOR, encoding="utf-8")
        secret.chmod(mode)
        warnings: list[str] = []
        load(None, {"POLLER_WEB__TOKEN_FILE": str(secret)}, warnings)
    cure = f"chmod o= {secret}"
    assert [line.endswith(cure) for line in warnings] == ([True] if told else [])


def _key(bits: int = 1024) -> RSA.RsaKey:
    return RSA.generate(bits)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: _key().public_key().export_key(), "holds a public key"),
        (lambda: _key().export_key(passphrase=WORD), "locked with a passphrase"),
        (
            lambda: _key().export_key(
                passphrase=WORD, pkcs=8, protection="PBKDF2WithHMAC-SHA1AndAES256-CBC"
            ),
            "locked with a passphrase",
        ),
        (lambda: _key(2048).export_key(), "holds 2048 bits"),
        (lambda: _key().export_key("DER"), "no key in PEM"),
        (lambda: b"\xef\xbb\xbf" + _key().export_key(), "byte-order mark"),
        (lambda: b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----", "certificate"),
        (lambda: ECC.generate(curve="P-256").export_key(format="PEM").encode(), "no RSA key"),
        (lambda: _key().export_key()[:300], "no RSA key"),
        (lambda: b"", "no key in PEM"),
        (lambda: b"-----BEGIN" * 10_000, "more than the 64 KiB"),
        (lambda: _key().export_key(), None),
        (lambda: _key().export_key(pkcs=8), None),
        (lambda: _key().export_key().replace(b"\n", b"\r\n"), None),
    ],
)
def test_a_key_the_sdk_could_not_use_is_a_clear_line(
    tmp_path: Path, make: Callable[[], bytes], words: str | None
) -> None:
    """Each way of being the wrong file is named, with what to do; the right one passes."""
    path = tmp_path / "key"
    path.write_bytes(make())
    problem = problem_of_key(path)
    if words is None:
        assert problem is None
    else:
        assert problem is not None
        assert problem.startswith(str(path))
        assert words in problem


def test_process_substitution_gives_configuration_and_secrets() -> None:
    """The shell's `<(…)` and a here-document work where a file is named."""
    token = VISITOR
    code = (
        "import sys, pathlib\nfrom poller.settings.config import load\n"
        "found = load(pathlib.Path('/dev/stdin'), {'POLLER_WEB__TOKEN_FILE': sys.argv[1]})\n"
        "print(found.log_level, found.web.token.get_secret_value())"
    )
    script = f'printf "log_level = \'error\'" | "$0" -c "$1" <(echo {token})'
    done = subprocess.run(
        ["/bin/bash", "-c", script, sys.executable, code], capture_output=True, check=False
    )
    assert done.stdout.decode() == f"error {token}\n", done.stderr.decode()


@pytest.mark.parametrize("verb", ["check", "web"])
def test_an_exposed_secret_is_told_where_the_operator_looks(tmp_path: Path, verb: str) -> None:
    """Once at the start, and in the table of `check`; nothing is refused."""
    plain = {name: text for name, text in os.environ.items() if not name.startswith("POLLER_")}
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        Path(made).chmod(0o755)
        secret = Path(made) / "token"
        secret.write_text(VISITOR, encoding="utf-8")
        secret.chmod(0o644)
        variables = {
            "POLLER_CONFIG": os.devnull,
            "POLLER_STATE_DIR": str(tmp_path),
            "POLLER_WEB__TOKEN_FILE": str(secret),
            "POLLER_WEB__PORT": "0",
            "POLLER_OPEND__PORT": "9",
        }
        with subprocess.Popen(
            [sys.executable, "-m", "poller", verb],
            env=plain | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert process.stdout is not None
            told = b""
            for line in process.stdout:
                told += line
                if b"chmod o=" in line:
                    break
            process.terminate()
            process.communicate(timeout=scaled(30))
    assert f"chmod o= {secret}".encode() in told
    assert b"secret file" in told
