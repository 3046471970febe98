"""How many files and connections the process may have open."""

import contextlib
import resource
from typing import Final

MOST_DESCRIPTORS: Final = 16_384
"""Enough for 1,000 endpoints of 8 connections, the page and Redis; `LimitNOFILE=` of the units."""


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files towards the hard one; returns what it is then.

    The soft one is 1,024 on most machines for the sake of programs that call select(); nothing here
    does. It is never lowered. Call it before the first child is started: an embedded server derives
    from it how many clients it takes.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # a unit that forbids @resources has set the limit it wants
        with contextlib.suppress(OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return soft
