"""Reads small untrusted files, with bounds, and as UTF-8 whatever the locale.

A file must be regular, or a pipe (`<(…)`, `/dev/stdin`) where the caller allows one; never a
device, which may have no end. A pipe that nobody writes to is given up after `PIPE_WAIT`.
"""

import codecs
import os
import select
import stat
import time
from pathlib import Path
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

PIPE_WAIT: Final = 5.0
"""Seconds a pipe may take until its end: enough for a command that asks a password store."""

_CHUNK: Final = 64 * KIB
_NULL: Final = Path(os.devnull)
_MARKS: Final = (  # UTF-32 first: its byte-order mark begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_KINDS: Final = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnusableFile(ValueError):
    """A file cannot be used; the message names it, the line if there is one, and the fix."""


class NoSuchFile(UnusableFile):
    """There is no file at `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: there is no such file")
        self.path: Final = path


def read_text(path: Path, *, limit: int, pipe: bool = False) -> str:
    """Return a file's text without its byte-order mark, line ends unchanged; raises UnusableFile.

    `limit`: bytes. `pipe`: whether the file may be a pipe.
    """
    return decoded(path, read_bytes(path, limit=limit, pipe=pipe))


def read_bytes(path: Path, *, limit: int, pipe: bool = False) -> bytes:
    """Return a file's bytes; raises UnusableFile. `limit` and `pipe` as for `read_text`."""
    try:
        is_pipe = _checked(path, path.stat(), limit, pipe=pipe)
        # checked before opening, as opening a device can have effects, and again afterwards
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            is_pipe = _checked(path, os.fstat(descriptor), limit, pipe=pipe)
            found = _read_to_end(descriptor, limit, path if is_pipe else None)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise NoSuchFile(path) from None
    except ValueError as problem:  # a NUL in the path
        if isinstance(problem, UnusableFile):
            raise
        raise UnusableFile(f"{str(path)!r}: this is not a path") from None
    except OSError as problem:
        raise UnusableFile(f"{path}: cannot be read: {problem.strerror}") from None
    if len(found) > limit:
        raise UnusableFile(f"{path}: is larger than the {size(limit)} that are read")
    if is_pipe and not found:
        raise UnusableFile(f"{path}: the pipe held nothing; it can be read only once: name a file")
    return found


def decoded(path: Path, data: bytes) -> str:
    """Decode a file's bytes; raises UnusableFile with the line and the fix."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            raise UnusableFile(f"{path}:1: is text in {name}: save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        # the error's positions do not count the byte-order mark
        start = problem.start + len(data) - len(problem.object)
        line = data.count(b"\n", 0, start) + 1
        raise UnusableFile(
            f"{path}:{line}: is not text in UTF-8 (byte 0x{data[start]:02x}), but perhaps in GBK, "
            "Big5 or Latin-1: save it as UTF-8"
        ) from None
    if (at := text.find("\0")) >= 0:
        line = text.count("\n", 0, at) + 1
        raise UnusableFile(
            f"{path}:{line}: holds a NUL character, so it is damaged, or UTF-16, or no text: save "
            "it as UTF-8"
        )
    return text


def size(count: int) -> str:
    """Format a number of bytes, in KiB or MiB."""
    return f"{count // MIB} MiB" if count >= MIB else f"{count // KIB} KiB"


def _checked(path: Path, status: os.stat_result, limit: int, *, pipe: bool) -> bool:
    """Return whether the file is a pipe; raises UnusableFile if it may not be read."""
    mode = status.st_mode
    if stat.S_ISFIFO(mode) and pipe:
        return True
    # the null device is the usual way to name an empty file
    if stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and status.st_rdev == _NULL.stat().st_rdev):
        if status.st_size > limit:
            raise UnusableFile(
                f"{path}: has {status.st_size:,} bytes, more than the {size(limit)} that are read"
            )
        return False
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "no file")
    raise UnusableFile(f"{path}: is {kind}: name a regular file")


def _read_to_end(descriptor: int, limit: int, pipe: Path | None) -> bytes:
    """Read at most one byte more than `limit`; `pipe`: the path of a pipe, which is waited for."""
    found = bytearray()
    until = time.monotonic() + PIPE_WAIT
    while len(found) <= limit:
        if pipe is not None:
            left = max(until - time.monotonic(), 0)
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(left * 1000):
                raise UnusableFile(f"{pipe}: the pipe did not end within {PIPE_WAIT:g} s")
        try:
            chunk = os.read(descriptor, min(_CHUNK, limit + 1 - len(found)))
        except BlockingIOError:
            if pipe is None:
                raise
            continue
        if not chunk:
            break
        found += chunk
    return bytes(found)
