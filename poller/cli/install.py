"""`poller service install`: writes the systemd unit for this environment."""

import contextlib
import os
import re
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cyclopts import App

import poller
from poller.cli.options import ConfigFile
from poller.cli.runner import print_stderr
from poller.errors import ConfigError
from poller.service.unit import (
    NOTIFY_RELOAD_SINCE,
    STATE,
    TEMPORARY,
    Installation,
    is_at_home,
    obstacles,
    unit_of,
    unit_text,
)
from poller.settings.config import chosen_file, load, secret_files
from poller.settings.variables import CONFIG, PREFIX, is_injected
from poller.telemetry.roles import Role

_STATE_DIR: Final = f"{PREFIX}STATE_DIR"
UNITS: Final = Path("/etc/systemd/system")

service = App(name="service", help="Install the poller as a systemd service.")


@service.command(name="install")
def service_install(
    *,
    role: Role = "run",
    dry_run: bool = False,
    config: ConfigFile = None,
) -> None:
    """Write the systemd unit for this environment; print it unless root.

    Args:
        role: the whole service, or one role of it in a unit of its own
        dry_run: print the unit, write nothing
        config: TOML file
    """
    place = place_of(config, os.environ, installed())
    for line in reminders(config, os.environ):
        print_stderr(line)
    install(role, place, os.environ, dry_run=dry_run)


def reminders(file: Path | None, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield what keeps no unit from running, and what its operator would stumble over."""
    settings = load(file, {k: v for k, v in environment.items() if k != _STATE_DIR})
    chosen = chosen_file(file, environment)
    if chosen is None:
        yield (
            "no configuration: the unit has every key's default, and watches only what `poller "
            "watch add` names; poller config init /etc/poller/poller.toml writes one for --config"
        )
    elif settings.redis.url is None and settings.state_dir.absolute() != STATE:
        yield (
            f'{chosen.absolute()}: write state_dir = "{STATE}" into it: that is where the unit '
            "keeps its state, while commands with this configuration use "
            f"{settings.state_dir.absolute()}"
        )


def install(
    role: Role, place: Installation, environment: Mapping[str, str], *, dry_run: bool
) -> None:
    """Write the unit; only print it without root's rights or for `dry_run`."""
    text = unit_text(role, place)
    for variable in sorted(environment):
        ours = variable.startswith(PREFIX) and not is_injected(variable, environment[variable])
        if ours and variable != CONFIG:
            print_stderr(
                f"{variable} is set here and not in the unit: put it into the configuration"
            )
    if dry_run or os.geteuid() != 0:
        sys.stdout.write(text)
        if not dry_run:
            print_stderr("only root writes units; as root: the same command again")
        return
    target = UNITS / f"{unit_of(role)}.service"
    target.write_text(text, encoding="utf-8")
    print_stderr(f"written: {target}")
    print_stderr(f"now: systemctl daemon-reload && systemctl enable --now {unit_of(role)}")


@dataclass(frozen=True, slots=True)
class Installed:
    """This program's interpreter, its working directory, and the directories it needs."""

    python: Path
    directory: Path
    needs: Sequence[Path]


def installed() -> Installed:
    """Describe the running program."""
    needs = (Path(sys.prefix), Path(sys.base_prefix), Path(poller.__file__).parent)
    return Installed(Path(sys.executable), Path.cwd(), needs)


def place_of(
    file: Path | None,
    environment: Mapping[str, str],
    program: Installed,
    temporary: Sequence[Path] = TEMPORARY,
) -> Installation:
    """Describe this environment; raises ConfigError if a service could not run in it."""
    settings = load(file, environment)
    chosen = chosen_file(file, environment)
    config = chosen.absolute() if chosen else None
    secrets = [path.absolute() for path in secret_files(file, environment)]
    named = (*program.needs, *(path.absolute() for path in settings.watchlist.files))
    ways = [*named, program.python.parent, program.directory, *([config] if config else [])]
    real = [*(path.resolve() for path in ways), program.python.resolve().parent]
    place = Installation(
        python=program.python,
        directory=program.directory,
        config=config,
        needs=tuple(dict.fromkeys((*named, *real))),
        secrets=secrets,
        systemd=_systemd_version(),
    )
    problems = obstacles(place, temporary)
    problems += [
        f"{name}: two secret files bear this name; rename one, credentials go by their names"
        for name, count in Counter(path.name for path in secrets).items()
        if count > 1
    ]
    if config is not None and not config.stat().st_mode & stat.S_IROTH:
        problems.append(
            f"{config}: the service's own user cannot read it; move the secrets into files of "
            f"their own (url_file, secret_file), then: chmod a+r {config}"
        )
    configs = {config, config.resolve()} if config else set()
    problems += [line for path in place.seen if path not in configs for line in _closed(path)]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return place


def _closed(path: Path) -> Iterator[str]:
    """Yield a line for each part of a path that the service's own user cannot use."""
    # a home is hidden from the unit, and what is needed of it is bound into its view
    ways = [] if is_at_home(path) else list(path.parents)
    for part, right in ((path, stat.S_IROTH), *((way, stat.S_IXOTH) for way in ways)):
        with contextlib.suppress(OSError):
            mode = part.stat().st_mode
            needed = right | stat.S_IXOTH if stat.S_ISDIR(mode) else right
            if mode & needed != needed:
                yield f"{part}: the service's own user cannot use it: chmod a+rX {part}"


def _systemd_version() -> int:
    """Return the version of this machine's systemd; without one, a recent version."""
    try:
        answer = subprocess.run(["systemctl", "--version"], capture_output=True, check=False).stdout  # noqa: S607
    except OSError:
        return NOTIFY_RELOAD_SINCE
    found = re.match(rb"systemd (\d+)", answer)
    return int(found[1]) if found else NOTIFY_RELOAD_SINCE
