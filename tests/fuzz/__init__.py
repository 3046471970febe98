"""`python -m tests.fuzz`: what outsiders send, mutated, against every place that reads it.

FUZZ_SECONDS of processor time for each target (60), or FUZZ_INPUTS of each, or whichever comes
first; FUZZ_SEED; FUZZ_ONLY: how the names of the targets begin, with commas between. An input fails
when anything comes out of it but the errors its reader names, when what comes out is larger than it
may be, or when it takes longer than `engine.LONGEST` seconds of processor time. The inputs that
failed are printed, with the target and the error; the exit code is 1 then. The suite runs a few
thousand of each (`tests/test_fuzz.py`).
"""

from collections.abc import Mapping
from typing import Final

from tests.fuzz import answers, frames, queues, settings, stored, visitors
from tests.fuzz.engine import Target

TARGETS: Final[tuple[Target, ...]] = (
    *queues.TARGETS,
    *stored.TARGETS,
    *frames.TARGETS,
    *answers.TARGETS,
    *visitors.TARGETS,
    *settings.TARGETS,
)

WITHOUT_DECODER: Final[Mapping[str, str]] = {
    "budget:<account>": "counted by grant.lua and spend.lua, by score alone",
    "budget:<account>:groups": "the same",
    "budget:<account>:names": "the same",
    "budget:<account>:snapshots": "the same",
    "budget:<account>:rank": "the same",
    "budget:login:<user>": "the same",
    "budget:login:<user>:groups": "the same",
    "budget:login:<user>:names": "the same",
    "budget:login:<user>:snapshots": "the same",
    "budget:login:<user>:rank": "the same",
    "lease": "compared as a whole by commit.lua and renew.lua; the page takes it by one pattern",
    "fence": "counted up by lease.lua; what is no number is named",
    "signals": "a subject is compared with what is waited for",
    "releases:told": "ids that announce.lua looks up",
    "quarantine": "written for other readers; what is held stands in the hash",
    "webhook:<name>:claims": "tokens that exchange.lua compares",
    "reader:<group>": "compared as a whole by receive.lua and share.lua",
    "sharers:<group>": "compared by share.lua, by score alone",
    "shared:<group>": "names that share.lua compares",
    "simulated": "compared with a constant",
}
"""Keys of the README's table that nothing is parsed of, and why; `tests/test_every_key.py` spoils
them, like all others, under a running service."""
