"""The state directory: checks owners and permissions, and opens files safely. An edge.

Its files decide where the service listens and with which password. So it must belong to its owner
alone: files that others may have planted are refused, and loose permissions are tightened.
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
"""The embedded server's directory inside the state directory."""

_DATA: Final = "appendonlydir"  # the server makes it at its first start
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_PASSWORD: Final = re.compile(rb"[!-~]{32,512}")
"""Printable, and too long to guess; ours have 43 characters."""


def holds_data(state_dir: Path) -> bool:
    """Return whether an embedded server has written there; True if we may not look."""
    try:
        (state_dir / SERVER / _DATA).stat()
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


class Unsafe(OSError):
    """A directory or file that others may have planted; `strerror` names it and the fix."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EPERM, text)


def make_private(state_dir: Path) -> list[str]:
    """Create the server's directory, closed to other users; returns warnings for the log.

    Raises Unsafe if another user may have planted it, and OSError if it cannot be created. Root may
    use another user's directory, to talk to that user's server.
    """
    state_dir = state_dir.absolute()
    folder = state_dir / SERVER
    said = _check_ancestors(state_dir)
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    said += _check_ancestors(folder)
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
    """Return why a user cannot trust a directory; None if it can be trusted.

    `others`: any user may have planted it.
    """
    if found.st_uid in {0, user} or (user == 0 and not others):
        return None
    return (
        f"belongs to {_user(found.st_uid)}: run it as that user, or name another state_dir "
        "(POLLER_STATE_DIR)"
    )


def _check_ancestors(path: Path) -> list[str]:
    """Return how other users could redirect `path`; raises Unsafe if one may already have.

    The kernel's rule for links in /tmp: in a directory that anybody may write to, follow only what
    belongs to us, to root, or to the owner of that directory.
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
    """Create a socket's directory outside the server's; raises Unsafe if it may be planted."""
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
    """Open a file in the server's directory; raises Unsafe unless it is a regular file of ours.

    It follows no symbolic link and truncates nothing: a planted one may lead anywhere.
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
    """Return the password and a warning, or None; raises OSError if the file is absent.

    Permissions that let others read it are tightened. Raises Unsafe if the file may be planted, or
    was truncated by a power failure.
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
    """Replace the password file atomically: complete and on disk before it is visible."""
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
