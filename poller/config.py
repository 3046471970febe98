"""The configuration: one frozen value, refused whole with every problem and its key.

Order: defaults, then the TOML file, then environment variables `POLLER_SECTION__KEY`. Nothing else
reads the environment.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from poller.codefile import read_codes
from poller.endpoint import Endpoint, Kind, check_secrets, check_url, kind_of
from poller.errors import ConfigError
from poller.location import locate
from poller.model import Code, parse_code
from poller.release import Intervals
from poller.selection import Selection

PREFIX: Final = "POLLER_"
DEFAULT_FILE: Final = Path("config/poller.toml")
_LISTS: Final = {"opend", "webhooks"}  # sections that are tables in a list


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _split(value: object) -> object:
    """Let an environment variable give a list as `a,b,c`."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _namespace(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text, re.ASCII):
        raise ValueError("use letters, digits, '.', '_' and '-'")
    return text


def _redis_url(url: SecretStr) -> SecretStr:
    locate(url.get_secret_value())
    return url


def _code_file(path: Path) -> Path:
    _, problems = read_codes(path)
    if problems:
        raise ValueError("; ".join(problems))
    return path


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_split)]
Codes = Annotated[tuple[Annotated[Code, AfterValidator(parse_code)], ...], BeforeValidator(_split)]
CodeFiles = Annotated[
    tuple[Annotated[Path, AfterValidator(_code_file)], ...], BeforeValidator(_split)
]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Opend(_Section):
    """One gateway; gateways of one account share one request budget."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Port = 11111
    account: Annotated[str, AfterValidator(_namespace)] = "main"
    rsa_private_key_file: Path | None = None


class Redis(_Section):
    """Where the state lives; without a URL an embedded server in `state_dir`.

    `replicas`: how many of them must have a commit before it counts as done. `keep_days`: how long
    the stream keeps its entries; 0 for ever.
    """

    url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = None
    namespace: Annotated[str, AfterValidator(_namespace)] = "short-interest"
    replicas: Annotated[int, Field(ge=0, le=100)] = 0
    keep_days: Annotated[int, Field(ge=0, le=36_500)] = 0


def _pattern(text: str) -> str:
    if not text.startswith(("HK.", "US.", "*", "?", "[")):
        raise ValueError("give a code or a shell pattern of codes: 'HK.00700', 'US.*'")
    return text


class Watchlist(_Section):
    """What is polled. `history`: rows published as backfilled at first sight of a symbol.

    `weights`: by code or shell pattern; heavier symbols are polled first when a report is out.
    """

    codes: Codes = (Code("HK.00700"), Code("US.AAPL"))
    files: CodeFiles = ()
    futu_groups: Names = ()
    history: Annotated[int, Field(ge=0, le=10_000)] = 50
    weights: Mapping[
        Annotated[str, AfterValidator(_pattern)],
        Annotated[float, Field(gt=0, allow_inf_nan=False)],
    ] = {}

    @model_validator(mode="after")
    def _only_what_is_named(self) -> Self:
        """The two example codes are for a configuration that names nothing else."""
        if (self.files or self.futu_groups) and "codes" not in self.model_fields_set:
            object.__setattr__(self, "codes", ())
        return self


class Budget(_Section):
    """At most `requests` in any `period` seconds, per account."""

    requests: Annotated[int, Field(ge=1)] = 30
    period: Seconds = 30.0


class Schedule(_Section):
    """Seconds between probes of a market: once a report is due, before, and when it is late."""

    due: Seconds = 20.0
    idle: Seconds = 2400.0
    late: Seconds = 300.0

    @property
    def intervals(self) -> Intervals:
        """The same, as the plan wants them."""
        return Intervals(*(timedelta(seconds=s) for s in (self.due, self.idle, self.late)))


class Web(_Section):
    """Where the status page is served."""

    host: str = "127.0.0.1"
    port: Port = 8080


class Webhook(_Section):
    """One endpoint. `connections`, `rate`: of each process. `wait`: how long messages gather."""

    name: Annotated[str, AfterValidator(_namespace)]
    events: Annotated[
        tuple[Literal["reported", "revised", "backfilled"], ...], BeforeValidator(_split)
    ] = ("reported", "revised")
    codes: Names = ("*",)
    filter: str | None = None
    allow_http: bool = False
    allow_private: bool = False
    connections: Annotated[int, Field(ge=1, le=100)] = 8
    rate: Annotated[float, Field(gt=0, le=10_000)] = 20.0
    feishu: bool = False
    wait: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    url: SecretStr
    secret: Annotated[Secrets, Field(validate_default=True)] = ()

    @field_validator("codes", "filter")
    @classmethod
    def _understood(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401  of either key
        Selection(**{str(info.field_name): value})
        return value

    @field_validator("url")
    @classmethod
    def _allowed(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        text = url.get_secret_value()
        if kind_of(text, feishu=info.data.get("feishu", False)) is not Kind.APPRISE:
            allowed = {key: info.data.get(key, False) for key in ("allow_http", "allow_private")}
            check_url(text, **allowed)
        return url

    @field_validator("secret")
    @classmethod
    def _fitting(cls, secrets: Secrets, info: ValidationInfo) -> Secrets:
        url = info.data.get("url", SecretStr("")).get_secret_value()  # absent: it was refused
        kind = kind_of(url, feishu=info.data.get("feishu", False))
        check_secrets(kind, [secret.get_secret_value() for secret in secrets])
        return secrets

    def endpoint(self) -> Endpoint:
        """Return it as delivery knows it."""
        return Endpoint(
            self.name,
            self.url.get_secret_value(),
            tuple(secret.get_secret_value() for secret in self.secret),
            Selection(frozenset(self.events), self.codes, self.filter),
            allow_http=self.allow_http,
            allow_private=self.allow_private,
            connections=self.connections,
            rate=self.rate,
            kind=kind_of(self.url.get_secret_value(), feishu=self.feishu),
            wait=timedelta(seconds=self.wait),
        )


class Config(_Section):
    """Everything an operator can set."""

    state_dir: Path = Path("state")
    opend: Annotated[tuple[Opend, ...], Field(min_length=1)] = (Opend(),)
    redis: Redis = Redis()
    watchlist: Watchlist = Watchlist()
    budget: Budget = Budget()
    schedule: Schedule = Schedule()
    web: Web = Web()
    webhooks: tuple[Webhook, ...] = ()


def load(file: Path | None, environment: Mapping[str, str]) -> Config:
    """Return the configuration, or raise ConfigError with one line per problem.

    `file`: the one asked for; None: `POLLER_CONFIG`, else `config/poller.toml` if there is one.
    """
    chosen = file or (Path(named) if (named := environment.get("POLLER_CONFIG")) else None)
    if chosen is None and DEFAULT_FILE.is_file():
        chosen = DEFAULT_FILE
    problems: list[str] = []
    raw: dict[str, Any] = _read(chosen) if chosen else {}
    origin = _merge(raw, environment, problems)
    _read_secrets(raw, problems)
    source = str(chosen) if chosen else "configuration"
    try:
        config = Config.model_validate(raw)
    except ValidationError as invalid:
        errors = invalid.errors()
        # a table that is refused leaves its list empty: not a problem of its own
        errors = [e for e in errors if e["type"] != "too_short"] or errors
        problems += [_problem(error, raw, source, origin) for error in errors]
        raise ConfigError(problems) from None
    problems += [f"{source}: {line}" for line in _contradictions(config)]
    if problems:
        raise ConfigError(problems)
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([f"{path}: there is no such file"]) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError([f"{path}: cannot be read: {problem}"]) from None
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError([f"{path}: is not TOML: {problem}"]) from None


def _merge(
    raw: dict[str, Any], environment: Mapping[str, str], problems: list[str]
) -> dict[str, str]:
    """Lay `POLLER_SECTION__KEY` over `raw`; returns which dotted key came from which variable.

    A list of tables is addressed by number (`POLLER_OPEND__1__HOST`), the first one also without.
    """
    origin = {}
    for variable, text in sorted(environment.items(), key=_in_order):
        if not variable.startswith(PREFIX) or variable == "POLLER_CONFIG":
            continue
        path = variable.removeprefix(PREFIX).lower().split("__")
        if path[0] in _LISTS and len(path) > 1 and not path[1].isdigit():
            path.insert(1, "0")
        try:
            _put(raw, path, text)
        except (TypeError, IndexError, KeyError):
            problems.append(f"{variable}: there is no such key")
            continue
        origin[".".join(path)] = variable
    return origin


def _in_order(item: tuple[str, str]) -> list[tuple[int, str]]:
    """Sort the tables of a list by their number: 10 comes after 9."""
    return [(len(part), part) for part in item[0].split("__")]


def _put(raw: dict[str, Any], path: list[str], text: str) -> None:
    here: Any = raw
    for step, following in zip(path, [*path[1:], ""], strict=True):
        key: Any = int(step) if isinstance(here, list) else step
        if not following:
            here[key] = json.loads(text) if text.startswith(("[", "{")) else text
            return
        if isinstance(here, list) and key == len(here):
            here.append({})
        elif isinstance(here, dict) and key not in here:
            here[key] = [] if key in _LISTS and here is raw else {}
        here = here[key]


def _read_secrets(raw: dict[str, Any], problems: list[str]) -> None:
    """Replace `url_file` and `secret_file` by the text of the file, or of each of several."""
    webhooks = raw.get("webhooks", [])
    tables = [("redis", raw.get("redis"))]
    tables += [(f"webhooks.{n}", table) for n, table in enumerate(webhooks)]
    for name, table in tables:
        for key in ("url", "secret"):
            if not isinstance(table, dict) or f"{key}_file" not in table:
                continue
            texts = []
            for path in map(str, cast("list[object]", _split(table.pop(f"{key}_file")))):
                try:
                    texts += Path(path).read_text(encoding="utf-8").split()
                except (OSError, UnicodeDecodeError) as problem:
                    reason = getattr(problem, "strerror", problem)
                    problems.append(f"{name}.{key}_file: {path}: {reason}")
            table[key] = ",".join(texts)


def _problem(
    error: Any,  # noqa: ANN401  pydantic's ErrorDetails
    raw: Mapping[str, Any],
    source: str,
    origin: Mapping[str, str],
) -> str:
    key = ".".join(str(part) for part in error["loc"])
    where = next(
        (variable for known, variable in origin.items() if f"{key}.".startswith(f"{known}.")),
        f"{source}: {key}",
    )
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key{_did_you_mean(error['loc'])}"
    text = str(error["msg"]).removeprefix("Value error, ")
    value = _value_at(raw, error["loc"])
    shown = f" (it is {value!r})" if isinstance(value, str | int | float) else ""
    secret = not {"url", "secret"}.isdisjoint(error["loc"])
    return f"{where}: {text}{'' if secret else shown}"


def _did_you_mean(location: tuple[int | str, ...]) -> str:
    model: Any = Config
    for part in location[:-1]:
        if isinstance(part, str):
            model = _SECTIONS.get(part, model)
    known = list(model.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(sorted(known))}"


_SECTIONS: Final[Mapping[str, type[_Section]]] = {
    "opend": Opend,
    "redis": Redis,
    "watchlist": Watchlist,
    "budget": Budget,
    "schedule": Schedule,
    "web": Web,
    "webhooks": Webhook,
}


def _value_at(raw: Any, location: tuple[int | str, ...]) -> Any:  # noqa: ANN401  TOML has no types
    for part in location:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _contradictions(config: Config) -> list[str]:
    """Check what no single key can tell."""
    lines = []
    keys = {gateway.rsa_private_key_file for gateway in config.opend}
    if len(keys) > 1:
        lines.append(
            "opend: the SDK encrypts all connections with one key or none: give every gateway the "
            "same rsa_private_key_file"
        )
    names = [webhook.name for webhook in config.webhooks]
    lines += [
        f"webhooks: {name} is the name of two: each keeps a queue under its name"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    places = [(gateway.host, gateway.port) for gateway in config.opend]
    lines += [
        f"opend: {host}:{port} is listed twice"
        for host, port in dict.fromkeys(places)
        if places.count((host, port)) > 1
    ]
    return lines
