"""Every error of the project, grouped by what the caller does next.

PollerError
├── ConfigError        list every problem at once, exit 2
├── BadCode            reject the symbol by name, before a request is spent
├── Unreadable         skip or park the record; the caller names its key
├── GatewayError       one request to OpenD failed
│   ├── TooFrequent    another client uses up our budget: wait a full period
│   ├── NoRight        the account may not see this: ask another one, and this one rarely
│   ├── Overdue        OpenD is alive but has no answer: a matter of the symbol or its market
│   ├── Outdated       OpenD does not know the call: another version is needed
│   ├── Unavailable    no answer: back off, keep the watermark
│   │   ├── Disconnected  the connection was lost: ask again over the next one
│   │   │   └── HungUp     while the request was under way: ask again, but not for ever
│   │   └── Silent     no answer in time: after several in a row, reconnect
│   ├── Malformed      an answer that cannot be trusted: publish nothing, ask again later
│   └── Refused        OpenD will not serve this code: stop asking for it, notify the operator
└── StoreError         a command to Redis failed
    ├── StoreDown      no answer, or no writes accepted: wait, spend no requests meanwhile
    ├── Superseded     the state has changed since it was read: read and compare again
    ├── LeaseLost      another poller is active: stand by
    ├── LockedOut      Redis rejects the user or password: report it and exit
    └── StoreMisfit    only the operator can fix it: wrong version, wrong type, unusable value
        └── Unwritable nothing can be written for any symbol: report it once, not per symbol
"""

from collections.abc import Callable, Sequence


def how_to_install(extra: str, package: str) -> str:
    """Return what to type where a package is missing that only one extra needs."""
    name = "short-interest-poller"
    return f"pip install '{name}[{extra}]', or with pipx: pipx inject {name} {package}"


class PollerError(Exception):
    """Root of all errors a caller is expected to handle."""


class ConfigError(PollerError):
    """The configuration is rejected as a whole; `problems` holds one line per problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        """Keep the problems apart, so that a command can print one per line."""
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class BadCode(PollerError, ValueError):
    """Not a symbol this service can ask for; the message names it and the fix."""


class Unreadable(PollerError, ValueError):
    """A text is not the expected record; the message quotes none of it."""


class GatewayError(PollerError):
    """A request to OpenD got no usable answer."""


class TooFrequent(GatewayError):
    """Another client uses up our budget: wait a full period."""


class NoRight(GatewayError):
    """OpenD says that its account may not see this: a property of account and market."""


class Overdue(GatewayError):
    """OpenD has no answer to this request, and lives: its connection is as good as ever."""


class Outdated(GatewayError):
    """OpenD cannot serve this call in any market; the text names the cure."""


class Unavailable(GatewayError):
    """No answer: back off, keep the watermark.

    `replaced` is set where the request may still reach OpenD. It returns whether a new connection
    has replaced the request's: from then on it has arrived, or never will.
    """

    replaced: Callable[[], bool] | None = None


class Disconnected(Unavailable):
    """The connection was lost: ask again over the next one."""


class HungUp(Disconnected):
    """It was lost while the request was under way: what was asked for may be the cause."""


class Silent(Unavailable):
    """No answer came in time; after several in a row the connection is replaced."""


class Malformed(GatewayError):
    """An answer that cannot be trusted: publish nothing, ask again later, notify the operator."""


class Refused(GatewayError):
    """OpenD will not serve this code: stop asking for it, notify the operator."""


class StoreError(PollerError):
    """A command to Redis failed."""


class StoreDown(StoreError):
    """No answer, or no writes accepted: wait and repeat; nothing was decided.

    `asked_at`: when the command was sent, in seconds of `time.monotonic`, if that is known.
    """

    asked_at: float | None = None


class Superseded(StoreError):
    """The state has changed since the comparison read it: read and compare again."""


class LeaseLost(StoreError):
    """Another poller holds the lease, or ours ran out: stand by."""


class LockedOut(StoreError):
    """Redis rejects the user or password: only a change of the configuration helps.

    Not a `StoreMisfit`, which callers survive by doing without one key.
    """


class StoreMisfit(StoreError):
    """Only the operator can fix it; the message names the key or setting and the fix."""


class Unwritable(StoreMisfit):
    """Nothing can be written for any symbol: report it once, not per symbol."""
