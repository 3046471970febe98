"""The files that come with the program for its operator, such as units, alerts and examples."""

import shutil
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import poller
from poller.errors import ConfigError

TEMPLATE: Final = "poller.toml"
"""The name of the configuration template."""

_PACKAGE: Final = Path(poller.__file__).parent
# inside a wheel; in a checkout, where whoever looks for them finds them sooner
_PLACES: Final = (_PACKAGE / "config", _PACKAGE.parent / "config")

_PATTERNS: Final[Mapping[str, str]] = {
    TEMPLATE: "the configuration, every key with its default",
    "examples/*": "programs that follow the stream, bridges, and a receiver's check of signatures",
    "grafana/*": "a dashboard of the service, and one of the figures",
    "grafana/provisioning/*/*": "what loads them into Grafana",
    "prometheus/alerts.yml": "the alerts",
    "schemas/*": "how events are written: JSON Schema, AsyncAPI",
    "systemd/*": "a systemd unit for each role",
}


def shipped_files() -> dict[str, str]:
    """Return the name of each file, relative to `folder`, and what it is.

    Raises ConfigError when the installation has none.
    """
    root = folder()
    return {
        path.relative_to(root).as_posix(): what
        for pattern, what in _PATTERNS.items()
        for path in sorted(root.glob(pattern))
        if path.is_file()
    }


def folder() -> Path:
    """Return where they are; raises ConfigError when the installation has none."""
    for place in _PLACES:
        if (place / TEMPLATE).is_file():
            return place
    raise ConfigError([f"{_PLACES[0] / TEMPLATE} is missing: install the package again"])


def template() -> str:
    """Return the text of the configuration template; raises ConfigError when it is missing."""
    return (folder() / TEMPLATE).read_text(encoding="utf-8")


def chosen(patterns: tuple[str, ...]) -> dict[str, str]:
    """Return the files that shell patterns name, all of them for no pattern.

    Raises ConfigError with a line for each pattern that names none.
    """
    files = shipped_files()
    if not patterns:
        return files
    problems = [
        f"{pattern}: no such file comes with this version; all: poller config files"
        for pattern in patterns
        if not any(fnmatchcase(name, pattern) for name in files)
    ]
    if problems:
        raise ConfigError(problems)
    return {
        name: what
        for name, what in files.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def copy(names: Mapping[str, str], into: Path) -> Iterator[Path]:
    """Copy files into a directory, in their folders, and yield each copy's path.

    Nothing is overwritten: raises FileExistsError, with the path, before anything is copied.
    """
    targets = {name: into / name for name in names}
    for target in targets.values():
        if target.exists() or target.is_symlink():
            raise FileExistsError(str(target))
    root = folder()
    for name, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target)
        yield target
