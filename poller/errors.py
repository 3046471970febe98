"""Every error of the project, grouped by what the caller does next.

PollerError
├── ConfigError        tell the operator every problem at once, exit 2
├── BadCode            refuse the symbol by name, before a request is spent
├── Unreadable         pass over, or park, what was read; the reader names its key
├── GatewayError       something about one request to OpenD
│   ├── TooFrequent    somebody else spends our budget: wait a full period
│   ├── Unavailable    no answer: back off, the watermark stands
│   │   ├── Disconnected  the connection went meanwhile: ask again over the next one
│   │   └── Silent     nothing came in time; several in a row, and the connection is built anew
│   ├── Malformed      an answer that cannot be trusted: publish nothing, ask again later
│   └── Refused        OpenD will not serve this code: keep it out, tell the operator
└── StoreError         something about Redis
    ├── StoreDown      no answer, or it takes no writes just now: wait, nothing is spent meanwhile
    ├── Superseded     the state moved since it was read: read again, compare again
    ├── LeaseLost      another poller is active: stand by
    ├── LockedOut      it lets this user in no more: end, and say so; no part can go on without
    └── StoreMisfit    only the operator can mend it: wrong version, wrong type, unusable value
        └── Unwritable no symbol's news can be written: tell it once, not once for each
"""

from collections.abc import Callable, Sequence


class PollerError(Exception):
    """Root of all errors a caller is expected to handle."""


class ConfigError(PollerError):
    """The configuration is refused whole; `problems` holds one line per problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        """Keep the lines apart, so that a face can print one per line."""
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class BadCode(PollerError, ValueError):
    """Not a symbol this service can ask for; the text names it and the cure."""


class Unreadable(PollerError, ValueError):
    """A text that is not the record it should be; the message holds none of the text."""


class GatewayError(PollerError):
    """A request to OpenD that brought no usable answer."""


class TooFrequent(GatewayError):
    """Somebody else spends our budget: wait a full period."""


class Unavailable(GatewayError):
    """No answer: back off, the watermark stands.

    `replaced`, where the request may still arrive: tells whether its connection was replaced by
    one that works, so that it has arrived by then or never will.
    """

    replaced: Callable[[], bool] | None = None


class Disconnected(Unavailable):
    """The connection went while the request was on its way: ask again over the next one."""


class Silent(Unavailable):
    """Nothing came in time; several in a row, and the connection is built anew."""


class Malformed(GatewayError):
    """An answer that cannot be trusted: publish nothing, ask again later, tell the operator."""


class Refused(GatewayError):
    """The gateway will not serve this code: keep it out, tell the operator."""


class StoreError(PollerError):
    """A command to Redis that did not do what was asked."""


class StoreDown(StoreError):
    """No answer, or no writes accepted just now: wait for it; nothing was decided."""


class Superseded(StoreError):
    """The state is not what the comparison saw: read again, compare again."""


class LeaseLost(StoreError):
    """Another poller holds the lease, or ours ran out: stand by."""


class LockedOut(StoreError):
    """Redis refuses the user or password: only another configuration can mend it.

    No `StoreMisfit`: whoever goes on without the key that one names cannot go on here.
    """


class StoreMisfit(StoreError):
    """Only the operator can mend it; the text names the key or setting and the cure."""


class Unwritable(StoreMisfit):
    """No symbol's news can be written: tell it once, not once for each."""
