"""The state directory: whose it is, who else may write there, and files nobody planted. An edge.

What lies there decides where the service listens and with which password. So it must be its owner's
alone: what others may have put there is refused, and what is merely open to others is closed.
"""

import contextlib
import errno
import os
import pwd
import re
import stat
from pathlib import Path
from typing import Final

SERVER: Final = "redis"
"""The directory of the embedded server in the state directory."""

_DATA: Final = "appendonlydir"  # the server makes it at its first start
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_PASSWORD: Final = re.compile(rb"[!-~]{32,512}")
"""Printable, and long enough that nobody guesses it; ours have 43 characters."""


def holds_data(state_dir: Path) -> bool:
    """Return whether an embedded server has written there; also where only its owner may look."""
    try:
        (state_dir / SERVER / _DATA).stat()
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


class Unsafe(OSError):
    """A directory or file that others may have put there; `strerror` says what and the cure."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EPERM, text)


def make_private(state_dir: Path) -> list[str]:
    """Make the server's directory, and close it to others; returns what has to be said of that.

    Raises Unsafe where somebody else may have put it there, and OSError where it cannot be made.
    Root may use the directory of another user, to speak to the server that one runs.
    """
    state_dir = state_dir.absolute()
    folder = state_dir / SERVER
    said = _check_way(state_dir)
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    said += _check_way(folder)
    for directory, closed in ((state_dir, _OTHERS_WRITE), (folder, _OTHERS)):
        found = directory.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if reason := distrust(found, os.geteuid(), others=bool(said)):
            raise Unsafe(f"{directory} {reason}")
        mode = stat.S_IMODE(found.st_mode)
        if not mode & closed or found.st_uid != os.geteuid() or mode & stat.S_ISVTX:
            continue
        directory.chmod(mode & ~closed)
        said.append(
            f"{directory} was open to other users ({mode:o}): it is closed now ({mode & ~closed:o})"
        )
    return list(dict.fromkeys(said))


def distrust(found: os.stat_result, user: int, *, others: bool) -> str | None:
    """Return why a user cannot trust a directory of the state; None: it can be.

    `others`: anybody may have put it there.
    """
    if found.st_uid in {0, user} or (user == 0 and not others):
        return None
    return (
        f"belongs to {_user(found.st_uid)}: run it as that user, or name another state_dir "
        "(POLLER_STATE_DIR)"
    )


def _check_way(path: Path) -> list[str]:
    """Return who else could turn the way to a path; raises Unsafe where somebody has.

    As the kernel judges links in /tmp: what lies in a directory that anybody writes is followed
    only if it is ours, root's, or of whoever owns that directory.
    """
    said = []
    for part in (*reversed(path.parents[:-1]), path):
        try:
            parent = part.parent.stat()
        except FileNotFoundError:
            break
        if not parent.st_mode & stat.S_IWOTH:
            continue
        if not parent.st_mode & stat.S_ISVTX:
            said.append(
                f"any user can put another directory in the place of {part}, as {part.parent} is "
                f"open to all: chmod o-w {part.parent}, or name another state_dir"
            )
        try:
            found = part.lstat()
        except FileNotFoundError:
            break
        trusted = {0, os.geteuid(), parent.st_uid}
        if found.st_uid not in trusted:
            kind = "is a symbolic link of" if stat.S_ISLNK(found.st_mode) else "belongs to"
            raise Unsafe(
                f"{part} {kind} {_user(found.st_uid)}, in a directory that is open to all; remove "
                "it, or name another state_dir"
            )
    return said


def make_socket_directory(path: Path, server: Path) -> None:
    """Make the directory of a socket that is not the server's own; Unsafe where it is planted."""
    if path == server:
        return
    owner = server.stat().st_uid
    if owner == os.geteuid():
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & _OTHERS:
        raise Unsafe(f"{path} is not {_user(owner)}'s alone: remove it, or shorten state_dir")


def open_own(path: Path, flags: int) -> int:
    """Open a file of the server's directory, made where it is missing; Unsafe unless it is ours.

    Never through a symbolic link, and nothing is truncated: what is planted there may lead
    anywhere.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError:
        mode = path.lstat().st_mode if os.path.lexists(path) else stat.S_IFREG
        if stat.S_ISLNK(mode):
            raise Unsafe(f"{path} is a symbolic link: remove it") from None
        if not stat.S_ISREG(mode):
            raise Unsafe(f"{path} is no regular file: remove it") from None
        raise
    try:
        found, folder = os.fstat(descriptor), path.parent.stat()
        if not stat.S_ISREG(found.st_mode):
            raise Unsafe(f"{path} is no regular file: remove it")
        if found.st_uid not in {0, os.geteuid(), folder.st_uid}:
            raise Unsafe(f"{path} belongs to {_user(found.st_uid)}: remove it")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_password(path: Path) -> tuple[str, str | None]:
    """Return a password and what has to be said of it; raises Unsafe, and OSError if it is absent.

    One that others could read is closed to them. Unsafe: planted, or cut short by a loss of power.
    """
    descriptor = open_own(path, os.O_RDONLY)
    try:
        text = os.read(descriptor, 1024).strip()
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if _PASSWORD.fullmatch(text) is None:
            raise Unsafe(f"{path} holds no password of 32 printable characters or more")
        if not mode & _OTHERS:
            return text.decode("ascii"), None
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    return text.decode("ascii"), (
        f"{path} could be read by other users ({mode:o}): it is closed now; remove it while "
        "no poller runs, and there is another password"
    )


def write_password(path: Path, text: str) -> None:
    """Put a password in a file's place: whole, and on the disk, before anybody sees it."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, text.encode("ascii"))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        new.replace(path)
    except IsADirectoryError:
        raise Unsafe(f"{path} is a directory: remove it") from None
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _user(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"
