"""Prepares for standard streams that are closed, full, or no longer read."""

import codecs
import errno
import faulthandler
import io
import os
import sys
from typing import Any, Final

_ESCAPED: Final = "poller-escaped"


def _escaped(problem: UnicodeError) -> tuple[str, int]:
    """Escape what cannot be encoded as JSON does; Python's own escapes would be invalid JSON."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    text = problem.object[problem.start : problem.end]
    units = text.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)), problem.end


class StdoutError(OSError):
    """A write to stdout failed."""

    @property
    def unread(self) -> bool:
        """Whether the reader has closed the pipe: `poller tail | head`."""
        return self.errno == errno.EPIPE

    def __str__(self) -> str:
        """Name the stream and the fix."""
        if self.errno == errno.EBADF:
            return "stdout is closed: the result has nowhere to go; send it to a file or a pipe"
        return f"stdout cannot be written: {self.strerror}; send it somewhere else"


class _Stdout(io.FileIO):
    """Descriptor 1, whose errors are `StdoutError`, which libraries do not swallow."""

    def write(self, data: Any, /) -> int:  # noqa: ANN401  whatever holds bytes
        try:
            return super().write(data)
        except OSError as problem:
            raise StdoutError(problem.errno, problem.strerror) from None


def prepare() -> None:
    """Replace closed streams, and make writes to stdout raise nothing but `StdoutError`.

    A replaced stdout cannot be written: a result that nobody gets is a failure. A replaced stderr
    discards everything. Crashes in native code print a traceback to stderr. Characters that a
    stream's encoding lacks are escaped as in JSON.
    """
    codecs.register_error(_ESCAPED, _escaped)
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # it gets the lowest free descriptor, which is this one
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(
            io.FileIO(2, "w", closefd=False),
            encoding="utf-8",
            errors=_ESCAPED,
            write_through=True,
        )
    elif isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors=_ESCAPED)
    faulthandler.enable(2)
    terminal = os.isatty(1)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Stdout(1, "w", closefd=False)),
        encoding="utf-8" if sys.stdout is None else sys.stdout.encoding,
        errors=_ESCAPED,
        line_buffering=terminal,
    )
