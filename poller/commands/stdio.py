"""The standard streams as they may be: closed, full, or read by somebody who has gone."""

import errno
import faulthandler
import io
import os
import sys
from typing import Any


class StdoutError(OSError):
    """What stdout says of a write that failed; like every error of the commands, it is told."""

    @property
    def unread(self) -> bool:
        """Whether the reader has simply gone: `poller tail | head`."""
        return self.errno == errno.EPIPE

    def __str__(self) -> str:
        """Name the stream, and the cure."""
        if self.errno == errno.EBADF:
            return "stdout is closed: the result has nowhere to go; send it to a file or a pipe"
        return f"stdout cannot be written: {self.strerror}; send it somewhere else"


class _Stdout(io.FileIO):
    """Descriptor 1; libraries know what to make of a broken pipe, and nothing of `StdoutError`."""

    def write(self, data: Any, /) -> int:  # noqa: ANN401  whatever holds bytes
        try:
            return super().write(data)
        except OSError as problem:
            raise StdoutError(problem.errno, problem.strerror) from None


def prepare() -> None:
    """Put something at the place of a closed stream, and let stdout raise `StdoutError` only.

    What is at the place of stdout cannot be written: a result that nobody gets is a failure. What
    is at the place of stderr takes everything. A crash in native code says there where it was.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # it takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(
            io.FileIO(2, "w", closefd=False),
            encoding="utf-8",
            errors="backslashreplace",
            write_through=True,
        )
    faulthandler.enable(2)
    terminal = os.isatty(1)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Stdout(1, "w", closefd=False)),
        encoding="utf-8" if sys.stdout is None else sys.stdout.encoding,
        errors="replace",
        line_buffering=terminal,
    )
