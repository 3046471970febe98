"""Turns redis-py's errors into ours, by what the caller does next. No other module reads them."""

import asyncio
import errno
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from redis import exceptions

from poller.errors import LockedOut, StoreDown, StoreMisfit

NEEDED: Final = "this service needs Redis 6.2 or Valkey 7.2 or newer"
"""The fix for a server that is too old."""


class WrongType(StoreMisfit):
    """A key has the wrong type for the command; a script's error does not say which key."""


_FIXES: Final = {
    "BUSY": "another client's script keeps it from answering: wait for it, or SCRIPT KILL",
    "EXECABORT": "it refused a part of a transaction, which is tried again",
    "CLUSTERDOWN": "the Cluster does not serve this slot: look at CLUSTER INFO",
    "LOADING": "it loads its data; polling goes on by itself",
    "MASTERDOWN": "a replica without its primary: start the primary",
    "MISCONF": "it takes no writes because it cannot save: make room on its disk, read its log",
    "NOREPLICAS": "it takes no writes with so few replicas: start them",
    "NOSCRIPT": "it has forgotten a script, which is being sent again",
    "OOM": "its memory is full: raise maxmemory, or make room",
    "READONLY": "it is a replica: name the primary in redis.url, or wait for the failover",
    "UNBLOCKED": "it is the primary no more: wait for the failover",
    "TRYAGAIN": "the Cluster moves the slot; polling goes on by itself",
    "ASK": "the Cluster moves the slot; polling goes on by itself",
}
"""Code of a temporary error → what it is, and what to do."""

# redis-py puts a pipeline's command before the error, and may truncate it
_OF_PIPELINE: Final = re.compile(
    r"""Command # \d+ \((?:\w+ (?P<key>\S+))?.*\) of pipeline caused error: \(?["']?(?P<text>.*)""",
    re.DOTALL,
)
# before Redis 7.0, the errors of scripts and transactions have the code inside their text
_CODE: Final = r"(?:^|-|because of: )"
_PASSING: Final = re.compile(rf"{_CODE}({'|'.join(_FIXES)})\b")
_FORBIDDEN: Final = re.compile(rf"{_CODE}(NOAUTH|NOPERM|WRONGPASS)\b")
_TOO_MANY: Final = "max number of clients reached"
UNHEARD: Final = re.compile(r"connecting to (\S+)\. (Connect call failed|.*refused|No such file)")
_CUT: Final = re.compile(
    r"(?i)closed|reset|broken|timeout reading|writing to socket|no connection avail|not ready"
)
_SILENCE: Final = "no answer in time, or the connection was cut"
_FILES: Final = (
    "no connection, because too many files are open here: raise the limit of this process "
    "(LimitNOFILE of its unit, or ulimit -n)"
)
_CLIENTS: Final = (
    "the server takes no more clients: raise its maxclients, and the files it may open "
    "(its LimitNOFILE, or ulimit -n), or end other clients"
)
_EMFILE: Final = "Too many open files"
_LONGEST_CHAIN: Final = 20  # of errors that caused one another


@contextmanager
def translated() -> Iterator[None]:
    """Turn redis-py's errors into ours, by what the caller does next.

    Python 3.11's `wait_for`, which redis-py uses, loses a cancellation that arrives together with
    an answer; it is raised again here, or a service would miss its SIGTERM.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    asked_at = time.monotonic()
    try:
        yield
    except (exceptions.RedisError, OSError) as problem:
        translation = _translation(problem)
        if isinstance(translation, StoreDown):
            translation.asked_at = asked_at
        raise translation from problem
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError  # instead of any other error, which would be handled


def _translation(problem: Exception) -> StoreDown | LockedOut | StoreMisfit:
    if isinstance(problem, exceptions.ResponseError):
        return _refusal(problem)
    # a refusal during the handshake is the cause of a failed connection
    refused = isinstance(problem, exceptions.AuthenticationError)
    if refused or isinstance(problem.__cause__, _REFUSED_TYPES):
        return LockedOut(f"Redis refuses the user or password: {_admission(str(problem))}")
    return StoreDown(absence(problem))


_GRANT: Final = "docs/redis.md has the ACL SETUSER line with the rights that are needed"


def _refusal(problem: exceptions.ResponseError) -> StoreDown | StoreMisfit:
    text, code, key = str(problem), problem.status_code, ""
    if (found := _OF_PIPELINE.match(text)) is not None:
        key, text = found["key"] or "", found["text"].rstrip("\"',)")
    if _FORBIDDEN.search(text) or isinstance(problem, exceptions.NoPermissionError):
        return StoreMisfit(f"Redis refuses this user: {text}; {_GRANT}")
    inside = _PASSING.search(text)  # the cause inside a transaction's error is more specific
    if (passing := inside[1] if inside else code) in _FIXES:
        return StoreDown(f"{passing}: {_FIXES[passing]}")
    if "WRONGTYPE" in text:
        return WrongType(
            f"a key of this namespace holds another type{f': {key}' if key else ''}; give "
            "redis.namespace a name of its own, or remove what is not this service's"
        )
    if "DB index" in text or "invalid DB" in text:
        return StoreMisfit(f"redis.url ends in a database the server does not have ({text})")
    if text.startswith("unknown command"):  # HELLO, the first command of all, came with 6.0
        return StoreMisfit(f"the server is too old ({text}): {NEEDED}")
    return StoreMisfit(f"Redis refuses a command: {text}")


def _admission(text: str) -> str:
    """Return what to do when the server refuses the user or password."""
    if text.startswith(("HELLO must", "NOAUTH", "Authentication required")):
        return "the server wants a password: write it into redis.url, redis://:PASSWORD@HOST:PORT"
    if text.startswith(("WRONGPASS", "invalid username-password", "invalid password")):
        return "it knows no such user and password: correct them in redis.url"
    return text


def absence(problem: Exception) -> str:
    """Return why there is no answer; similar failures share one text, to be reported once."""
    text = str(problem) or type(problem).__name__
    if _too_many_files(problem) or _EMFILE in text:
        return _FILES
    if _TOO_MANY in text:
        return _CLIENTS
    if (unheard := UNHEARD.search(text)) is not None:
        return f"nobody listens at {unheard[1]}"
    loading = isinstance(problem, exceptions.BusyLoadingError)  # its text lacks the code
    if (found := _PASSING.search("LOADING" if loading else text)) is not None:
        return f"{found[1]}: {_FIXES[found[1]]}"
    silent = isinstance(problem, exceptions.TimeoutError | TimeoutError)
    # a network may answer the same failure with either
    return _SILENCE if silent or _CUT.search(text) else text


def _too_many_files(problem: BaseException | None) -> bool:
    """Return whether this process ran out of file descriptors."""
    seen = 0
    while problem is not None and seen < _LONGEST_CHAIN:
        if isinstance(problem, OSError) and problem.errno in {errno.EMFILE, errno.ENFILE}:
            return True
        problem, seen = problem.__cause__ or problem.__context__, seen + 1
    return False


_REFUSED_TYPES: Final = (exceptions.AuthenticationError, exceptions.NoPermissionError)
