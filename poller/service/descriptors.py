"""Raises the number of files and connections that the process may have open."""

import contextlib
import resource
from typing import Final

MOST_DESCRIPTORS: Final = 16_384
"""Enough for 1,000 endpoints of 8 connections, the page and Redis; `LimitNOFILE=` of the units."""


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files towards the hard one; returns the new soft limit.

    It is 1,024 on most machines, for programs that call select(); nothing here does. It is never
    lowered. Call this before the first child starts: an embedded server derives its own limit of
    clients from it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # fails in a unit that forbids @resources, which has set the limit itself
        with contextlib.suppress(OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return soft
