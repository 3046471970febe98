"""The `config` commands: write a configuration template, and show the effective settings."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from cyclopts import App
from pydantic import BaseModel, SecretStr

from poller import show
from poller.cli.options import ConfigFile, load_config
from poller.cli.runner import FAILED, CommandFailed
from poller.printable import printable
from poller.settings import shipped
from poller.settings.config import DEFAULT_FILE, Config, chosen_file, origin_of_keys
from poller.store.location import locate

config = App(
    name="config", help="Write a configuration to begin with; show the effective settings."
)


@config.command
def init(path: Path = DEFAULT_FILE, /) -> None:
    """Write a configuration with every key, its default and what it means.

    Args:
        path: where to; nothing is overwritten
    """
    text = shipped.template()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise CommandFailed(
            FAILED, [f"{path.absolute()}: it exists, and stays as it is; name another file"]
        ) from None
    sys.stdout.write(f"{printable(path.absolute())}\n")
    usual = "" if path == DEFAULT_FILE else f" --config {printable(path)}"
    sys.stderr.write(f"poller: now edit it, then: poller check{usual}\n")


@config.command
def files(*name: str, into: Path | None = None) -> None:
    """List the files that come with the program: units, alerts, a dashboard, schemas, examples.

    Args:
        name: only these; shell patterns, such as 'grafana/*'
        into: copy them into this directory; nothing is overwritten
    """
    wanted = shipped.chosen(name)
    if into is None:
        show.print_table(("file", "is"), list(wanted.items()))
        sys.stderr.write("poller: copies: poller config files --into DIRECTORY\n")
        return
    try:
        for path in shipped.copy(wanted, into):
            sys.stdout.write(f"{printable(path.absolute())}\n")
    except FileExistsError as problem:
        taken = Path(str(problem)).absolute()
        raise CommandFailed(
            FAILED, [f"{printable(taken)}: it exists, and nothing was copied; remove or rename it"]
        ) from None


@config.command(name="show")
def show_configuration(*, config: ConfigFile = None) -> None:
    """Print every key, its effective value without secrets, and where it was set.

    Args:
        config: TOML file
    """
    settings = load_config(config)
    print_configuration(settings, config, os.environ, chosen_file(config, os.environ))


def print_configuration(
    settings: Config, file: Path | None, environment: Mapping[str, str], chosen: Path | None
) -> None:
    """Print every key, its value without secrets, and where it was set."""
    origins = origin_of_keys(file, environment)
    rows = []
    for key, value in _leaves(settings):
        names = (key, f"{key}_file")
        # each value of a table such as `weights` has an origin of its own
        fits = [name for name in origins if name in names or name.startswith(f"{key}.")]
        places = dict.fromkeys(_place(key, name, origins[name], chosen) for name in fits)
        rows.append((key, value, ", ".join(places) or "default"))
    show.print_table(("key", "value", "from"), rows)


def _place(key: str, written: str, origin: str, chosen: Path | None) -> str:
    """Return where a key was written: a variable, or the file, and the key's other spelling."""
    if chosen is None or origin != f"{chosen}: {written}":
        return origin
    return f"{chosen.absolute()}{f' ({written})' if written == f'{key}_file' else ''}"


def _leaves(table: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table:
        key = f"{prefix}{name}"
        match value:
            case BaseModel():
                yield from _leaves(value, f"{key}.")
            case (BaseModel(), *_):
                for number, inner in enumerate(value):
                    yield from _leaves(inner, f"{key}.{number}.")
            case _:
                yield key, _shown(key, value)


def _shown(key: str, value: object) -> str:
    """Return a value roughly as TOML writes it, without secrets and control characters."""
    match value:
        case None:
            return "-"
        case SecretStr():
            return f"*** ({host})" if (host := _host(key, value.get_secret_value())) else "***"
        case (SecretStr(), *_):
            return ", ".join("***" for _ in value)
        case Path():
            text = json.dumps(str(value.absolute()), ensure_ascii=False)
        case (Path(), *_):
            text = json.dumps(
                [str(Path(str(each)).absolute()) for each in value], ensure_ascii=False
            )
        case Mapping():
            text = json.dumps(dict(value), ensure_ascii=False)
        case _:
            text = json.dumps(value, ensure_ascii=False)
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode()
        for each in text
    )


def _host(key: str, url: str) -> str:
    """Return the hosts of a URL; none for chat services, whose hosts may be secret."""
    if key == "redis.url":
        return ", ".join(f"{node.host}:{node.port}" for node in locate(url).nodes)
    parts = urlsplit(url)
    return (parts.hostname or "") if parts.scheme in {"http", "https"} else ""
