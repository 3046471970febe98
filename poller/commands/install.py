"""`poller service install`: the unit for this very environment."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import poller
from poller.commands.ending import complain
from poller.errors import ConfigError
from poller.service.unit import NOTIFY_RELOAD_SINCE, Place, UnitRole, unit_text
from poller.settings.config import chosen_file, load, secret_files

UNITS: Final = Path("/etc/systemd/system")
_READABLE_BY_ALL: Final = 0o004


def install(
    role: UnitRole, file: Path | None, environment: Mapping[str, str], *, dry_run: bool
) -> None:
    """Write the unit, or print it where nothing may be written; raises ConfigError."""
    text = unit_text(role, place_of(file, environment))
    for variable in sorted(environment):
        if variable.startswith("POLLER_") and variable != "POLLER_CONFIG":
            complain(f"{variable} is set here and not in the unit: put it into the configuration")
    if dry_run or os.geteuid() != 0:
        sys.stdout.write(text)
        if not dry_run:
            complain("only root writes units; as root: the same command again")
        return
    target = UNITS / f"{role.unit}.service"
    target.write_text(text, encoding="utf-8")
    complain(f"written: {target}")
    complain(f"now: systemctl daemon-reload && systemctl enable --now {role.unit}")


def place_of(file: Path | None, environment: Mapping[str, str]) -> Place:
    """Describe this environment; raises ConfigError when a service could not run in it."""
    settings = load(file, environment)
    chosen = chosen_file(file, environment)
    config = chosen.absolute() if chosen else None
    secrets = [path.absolute() for path in secret_files(file, environment)]
    problems = [
        f"{name}: two secret files bear this name; rename one, credentials go by their names"
        for name, count in Counter(path.name for path in secrets).items()
        if count > 1
    ]
    if config is not None and not config.stat().st_mode & _READABLE_BY_ALL:
        problems.append(
            f"{config}: the service's own user cannot read it; move the secrets into files of "
            f"their own (url_file, secret_file), then: chmod a+r {config}"
        )
    if problems:
        raise ConfigError(problems)
    return Place(
        python=Path(sys.executable),
        directory=Path.cwd(),
        config=config,
        needs=(
            Path(sys.prefix),
            Path(sys.base_prefix),
            Path(poller.__file__).parent,
            *(path.absolute() for path in settings.watchlist.files),
        ),
        secrets=secrets,
        systemd=_systemd_version(),
    )


def _systemd_version() -> int:
    """Return the version of this machine's systemd; where there is none, a recent one."""
    try:
        answer = subprocess.run(["systemctl", "--version"], capture_output=True, check=False).stdout  # noqa: S607
    except OSError:
        return NOTIFY_RELOAD_SINCE
    found = re.match(rb"systemd (\d+)", answer)
    return int(found[1]) if found else NOTIFY_RELOAD_SINCE
