"""The systemd unit of a role, as text. Pure: what the machine is like is an argument.

`config/systemd/` holds what this returns for `REFERENCE`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

NOTIFY_RELOAD_SINCE: Final = 253
"""The first systemd that knows Type=notify-reload."""

_HOMES: Final = (Path("/home"), Path("/root"), Path("/run/user"))


class UnitRole(StrEnum):
    """What a unit runs; the value is the verb."""

    RUN = "run"
    POLL = "poll"
    DELIVER = "deliver"
    WEB = "web"

    @property
    def unit(self) -> str:
        """The name of the unit."""
        return "poller" if self is UnitRole.RUN else f"poller-{self}"


_WORK: Final = {
    UnitRole.RUN: "Short-interest poller",
    UnitRole.POLL: "Short-interest poller: polling",
    UnitRole.DELIVER: "Short-interest poller: webhooks",
    UnitRole.WEB: "Short-interest poller: status page",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the program is installed. Paths are absolute.

    `needs`: directories and files the program reads. `secrets`: what only root may read; each is
    handed over as a credential under its own name. `systemd`: the version that will read the unit.
    """

    python: Path
    directory: Path
    config: Path | None
    needs: Sequence[Path] = ()
    secrets: Sequence[Path] = ()
    systemd: int = NOTIFY_RELOAD_SINCE


REFERENCE: Final = Place(
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
# a wrong configuration does not mend itself; everything else is tried again
Restart=always
RestartSec=1
RestartPreventExitStatus=2
TimeoutStartSec=3min
# each loop that does the work comes round once a minute, however little there is to do
WatchdogSec=3min
# the embedded server outlives the first signal: what is in flight is still written. After a crash
# it is ended when the lease has run out, too
KillMode=mixed
TimeoutStopSec=12
# systemd's 1024 are few for hundreds of endpoints and a crowd on the page
LimitNOFILE=16384

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


def unit_text(role: UnitRole, place: Place) -> str:
    """Return the unit of a role at a place."""
    command = [place.python, "-m", "poller", role]
    if place.config is not None:
        command += ["--config", place.config]
    return _TEMPLATE.format(
        work=_WORK[role],
        type=_type(place.systemd),
        command=" ".join(_quoted(part) for part in command),
        directory=_escaped(place.directory),
        secrets=_credentials(place.secrets),
        home=_home(place),
    )


def _type(systemd: int) -> str:
    if systemd >= NOTIFY_RELOAD_SINCE:
        return "Type=notify-reload"
    return "Type=notify\nExecReload=kill -HUP $MAINPID"


def _credentials(secrets: Sequence[Path]) -> str:
    lines = [f"LoadCredential={_escaped(path.name)}:{_escaped(path)}" for path in secrets]
    return "\n".join(lines) or _CREDENTIALS_EXPLAINED


def _home(place: Place) -> str:
    """Hide all homes, but for what the program needs of them."""
    paths = [place.python.parent, place.directory, *place.needs]
    paths += [] if place.config is None else [place.config]
    inside = dict.fromkeys(p for p in paths if any(p.is_relative_to(home) for home in _HOMES))
    if not inside:
        return "ProtectHome=yes"
    return "\n".join(["ProtectHome=tmpfs", *(f"BindReadOnlyPaths={_quoted(p)}" for p in inside)])


def _escaped(text: object) -> str:
    return str(text).replace("\\", "\\\\").replace("%", "%%")


def _quoted(text: object) -> str:
    plain = _escaped(text).replace("$", "$$").replace('"', '\\"')
    return f'"{plain}"' if " " in plain or '"' in plain else plain
