"""The systemd unit of a role, as text. Pure: the machine's properties are an argument.

`config/systemd/` holds what this returns for `REFERENCE`.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from poller.service.descriptors import MOST_DESCRIPTORS
from poller.telemetry.roles import ROLES, Role

NOTIFY_RELOAD_SINCE: Final = 253
"""The first systemd that knows Type=notify-reload."""

STATE: Final = Path("/var/lib/poller")
"""Where the units keep their state (StateDirectory=poller): what `state_dir` is for them."""

_HOMES: Final = (Path("/home"), Path("/root"), Path("/run/user"))
TEMPORARY: Final = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108
"""Directories that a unit has for itself (PrivateTmp=yes)."""

_CREDENTIAL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_BARE: Final = re.compile(r"[A-Za-z0-9/._%+,@=-]+")
_UNWRITABLE: Final = {"Cc", "Cs", "Zl", "Zp"}
"""Control characters, lone surrogates (bytes that are not UTF-8), line and paragraph separators."""


def unit_of(role: Role) -> str:
    """Return the name of a role's unit."""
    return "poller" if role == "run" else f"poller-{role}"


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the program is installed. Paths are absolute.

    Attributes:
        python: The interpreter.
        directory: The working directory.
        config: The configuration file, if there is one.
        needs: Other directories and files that the program reads.
        secrets: Files that only root may read; each is passed as a credential of the same name.
        systemd: The version of systemd that will read the unit.
    """

    python: Path
    directory: Path
    config: Path | None
    needs: Sequence[Path] = ()
    secrets: Sequence[Path] = ()
    systemd: int = NOTIFY_RELOAD_SINCE

    @property
    def seen(self) -> tuple[Path, ...]:
        """Every path that the unit's processes must see; secrets come as credentials."""
        config = () if self.config is None else (self.config,)
        return (self.python.parent, self.directory, *self.needs, *config)


REFERENCE: Final = Installation(
    python=Path("/opt/poller/bin/python"),
    directory=Path("/etc/poller"),
    config=Path("/etc/poller/poller.toml"),
)

_TEMPLATE: Final = """\
[Unit]
Description={work}
Wants=network-online.target
After=network-online.target redis-server.service valkey-server.service
StartLimitIntervalSec=0

[Service]
{type}
ExecStart={command}
WorkingDirectory={directory}
# a wrong configuration does not fix itself; everything else is tried again
Restart=always
RestartSec=1
RestartPreventExitStatus=2
TimeoutStartSec=3min
# each loop that does the work beats once a minute, however little there is to do
WatchdogSec=3min
# the embedded server outlives the first signal: what is in flight is still written. After a crash
# it is ended when the lease has run out, too
KillMode=mixed
TimeoutStopSec=12
# systemd's 1024 are few for hundreds of endpoints and a crowd on the page
LimitNOFILE={descriptors}

DynamicUser=yes
User=poller
StateDirectory=poller
StateDirectoryMode=0700
Environment=POLLER_STATE_DIR=%S/poller HOME=%S/poller
{secrets}
{home}
CapabilityBoundingSet=
DevicePolicy=closed
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateMounts=yes
PrivateTmp=yes
PrivateUsers=yes
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
UMask=0077

[Install]
WantedBy=multi-user.target
"""

_CREDENTIALS_EXPLAINED: Final = """\
# a line for each secret file the configuration names (url_file, secret_file, …); root keeps it,
# and the poller reads the copy that bears its name:
# LoadCredential=redis-url:/etc/poller/redis-url
# LoadCredential=desk-secret:/etc/poller/desk-secret
# LoadCredential=web-token:/etc/poller/web-token"""


def obstacles(place: Installation, temporary: Sequence[Path] = TEMPORARY) -> list[str]:
    """Return a line for each reason why a unit cannot be written or started here.

    Each names the path, on one line, and what to do.
    """
    found = [line for path in place.seen for line in _obstacles_of(path, temporary)]
    for path in place.secrets:
        if _CREDENTIAL.fullmatch(path.name) is None:
            found.append(
                f"{_shown(path)}: a credential goes by its file's name, and systemd wants letters, "
                "digits, '.', '_' and '-' in it: rename the file"
            )
        elif (reason := _unwritable(path)) is not None:
            found.append(f"{_shown(path)}: {reason}")
    return list(dict.fromkeys(found))


def _obstacles_of(path: Path, temporary: Sequence[Path]) -> Iterator[str]:
    if (reason := _unwritable(path)) is not None:
        yield f"{_shown(path)}: {reason}"
    for hidden in temporary:
        if path.is_relative_to(hidden):
            yield (
                f"{_shown(path)}: the unit has a {hidden} of its own (PrivateTmp=yes) and would "
                "not find it: move it elsewhere, below /opt or /etc for example"
            )


def _unwritable(path: Path) -> str | None:
    text = str(path)
    if any(unicodedata.category(character) in _UNWRITABLE for character in text):
        return "a unit cannot hold its control characters, or what is not UTF-8: rename it"
    if set(text) & set("\"'\\"):
        return "systemd takes no quotation mark or backslash in a path: rename it"
    if text != text.strip():
        return "systemd would drop the blank at its end: rename it"
    return None


def _shown(path: Path) -> str:
    return "".join(
        character
        if unicodedata.category(character) not in _UNWRITABLE
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in str(path)
    )


def unit_text(role: Role, place: Installation) -> str:
    """Return the unit file of a role, for a place without obstacles."""
    command: list[object] = ["-m", "poller", role]
    if place.config is not None:
        command += ["--config", place.config]
    return _TEMPLATE.format(
        work=ROLES[role].title,
        type=_type(place.systemd),
        command=" ".join([_quoted(place.python), *(_argument(part) for part in command)]),
        directory=_escaped(place.directory),
        secrets=_credentials(place.secrets),
        descriptors=MOST_DESCRIPTORS,
        home=_home(place),
    )


def _type(systemd: int) -> str:
    if systemd >= NOTIFY_RELOAD_SINCE:
        return "Type=notify-reload"
    return "Type=notify\nExecReload=kill -HUP $MAINPID"


def _credentials(secrets: Sequence[Path]) -> str:
    lines = [f"LoadCredential={_escaped(path.name)}:{_escaped(path)}" for path in secrets]
    return "\n".join(lines) or _CREDENTIALS_EXPLAINED


def is_at_home(path: Path) -> bool:
    """Return whether a path is in a home directory, which a unit sees only if it is bound."""
    return any(path.is_relative_to(home) for home in _HOMES)


def _home(place: Installation) -> str:
    """Hide the home directories, except for what the program needs of them."""
    inside = dict.fromkeys(path for path in place.seen if is_at_home(path))
    if not inside:
        return "ProtectHome=yes"
    return "\n".join(["ProtectHome=tmpfs", *(f"BindReadOnlyPaths={_quoted(p)}" for p in inside)])


def _escaped(text: object) -> str:
    """Escape the rest of a line, where only specifiers are special."""
    return str(text).replace("%", "%%")


def _quoted(text: object) -> str:
    """Escape one word of a line; variables are not expanded in a program's path."""
    plain = _escaped(text)
    return plain if _BARE.fullmatch(plain) else f'"{plain}"'


def _argument(text: object) -> str:
    return _quoted(str(text).replace("$", "$$"))
