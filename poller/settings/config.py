"""The configuration: one frozen value, rejected as a whole with every problem and its key.

Order: defaults, then the TOML file, then environment variables `POLLER_SECTION__KEY`. Nothing else
reads them.
"""

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, Self, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from poller.delivery.addresses import names_loopback
from poller.delivery.destinations import Destination, check_secrets, check_url, choose, flags
from poller.delivery.endpoint import Endpoint
from poller.delivery.masking import secrets_in_key, secrets_in_lines
from poller.delivery.selection import Selection, check_pattern
from poller.errors import BadCode, ConfigError
from poller.model import Code, parse_code
from poller.schedule.release import Intervals
from poller.settings import credentials
from poller.settings.codefile import check_codes
from poller.settings.error_messages import Origin, follows, given_twice, refusal
from poller.settings.paths import (
    DEFAULT_STATE_DIR,
    STATE_DIR,
    anchor,
    state_dir_of,
    without_secrets,
)
from poller.settings.sources import LISTS, dotted, overlay, part, read, split
from poller.settings.variables import CONFIG, names_in, twin
from poller.store.location import locate
from poller.telemetry import log

T = TypeVar("T")
DEFAULT_FILE: Final = Path("config/poller.toml")
_READING: Final = "reading"  # key of pydantic's context
_URL_OPTIONS: Final = {
    "db",
    "socket_timeout",
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _flags_are_no_numbers(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401  of any key
        """Reject TOML booleans where a number is expected; pydantic would read true as 1."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and kind in {int, float}:
            raise PydanticKnownError("int_type" if kind is int else "float_type")
        return value


def _namespace(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text, re.ASCII):
        raise ValueError("use letters, digits, '.', '_' and '-'")
    return text


def _redis_url(url: SecretStr) -> SecretStr:
    known = locate(url.get_secret_value())
    options = dict(parse_qsl(urlsplit(known.url).query, keep_blank_values=True))
    if options.keys() - _URL_OPTIONS:
        raise ValueError(
            f"it has an option that is not known; known: {', '.join(sorted(_URL_OPTIONS))}"
        )
    if not re.fullmatch(r"[0-9]{1,9}", options.get("db", "0")):
        raise ValueError("its option db is not a number")
    limit = options.get("socket_timeout", "1")
    if not (re.fullmatch(r"[0-9]+(\.[0-9]+)?", limit, re.ASCII) and 0 < float(limit) < math.inf):
        raise ValueError("its option socket_timeout is not a number of seconds above 0")
    return url


def _token(token: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]{16,}", token.get_secret_value()):
        raise ValueError(
            "give at least 16 printable characters without spaces; make one: "
            "python3 -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token


def _path(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path cannot hold the character NUL")
    return path


def _not_empty(value: object) -> object:
    if value == "":  # as a path it would be the working directory, made inaccessible to others
        raise ValueError("it is empty: write a path, or leave the key out")
    return value


def _code_file(path: Path, info: ValidationInfo) -> Path:
    if _is_reading(info):
        return _path(path)
    try:
        return check_codes(_path(path))
    except ValueError as problem:  # file names may hold any bytes, and pydantic accepts only UTF-8
        raise ValueError(str(problem).encode(errors="backslashreplace").decode()) from None


def _is_reading(info: ValidationInfo) -> bool:
    return bool(info.context and info.context.get(_READING))


Names = Annotated[tuple[str, ...], BeforeValidator(split)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(split)]
Codes = Annotated[tuple[Annotated[Code, AfterValidator(parse_code)], ...], BeforeValidator(split)]
CodeFiles = Annotated[
    tuple[Annotated[Path, BeforeValidator(_not_empty), AfterValidator(_code_file)], ...],
    BeforeValidator(split),
]
_LONGEST: Final = 31 * 24 * 3600.0  # seconds; longer intervals are mistakes and may overflow dates
Seconds = Annotated[float, Field(gt=0, le=_LONGEST, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=1, le=65535)]
PlainPath = Annotated[Path, BeforeValidator(_not_empty), AfterValidator(_path)]


def _host(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        raise ValueError(f"write the address without brackets: {text[1:-1]}")
    return text


Host = Annotated[str, Field(min_length=1), AfterValidator(_host)]


class Opend(_Section):
    """One gateway; gateways of one account share one request budget."""

    host: Host = "127.0.0.1"
    port: Port = 11111
    account: Annotated[str, AfterValidator(_namespace)] = "main"
    rsa_private_key_file: PlainPath | None = None


class Redis(_Section):
    """Where the state is stored; without a URL in an embedded server in `state_dir`.

    `replicas`: how many replicas must have a commit before it counts as done. `keep_days`: how long
    the stream keeps entries; 0: for ever.
    """

    url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = None
    namespace: Annotated[str, AfterValidator(_namespace)] = "short-interest"
    replicas: Annotated[int, Field(ge=0, le=100)] = 0
    keep_days: Annotated[int, Field(ge=0, le=36_500)] = 0


def _no_flag(value: object) -> object:
    """Reject what pydantic would read as 1, as `_flags_are_no_numbers` does for other keys."""
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


def _pattern(text: str) -> str:
    check_pattern(text)
    return text


class Watchlist(_Section):
    """What is polled. `history`: rows published as backfilled when a symbol is first polled.

    `weights`: by code or shell pattern; heavier symbols are polled first when a report is out.
    """

    codes: Codes = (Code("HK.00700"), Code("US.AAPL"))
    files: CodeFiles = ()
    futu_groups: Names = ()
    history: Annotated[int, Field(ge=0, le=10_000)] = 50
    weights: Mapping[
        Annotated[str, AfterValidator(_pattern)],
        Annotated[float, BeforeValidator(_no_flag), Field(gt=0, allow_inf_nan=False)],
    ] = {}

    @model_validator(mode="after")
    def _without_examples(self) -> Self:
        """Use the two example codes only if the configuration names nothing else."""
        if (self.files or self.futu_groups) and "codes" not in self.model_fields_set:
            object.__setattr__(self, "codes", ())
        return self


class Budget(_Section):
    """At most `requests` in any `period` seconds, per account."""

    requests: Annotated[int, Field(ge=1, le=1_000_000)] = 30
    period: Seconds = 30.0


class Schedule(_Section):
    """Seconds between probes of a market when a report is due, before that, and when it is late.

    `hints`: whether OpenD's rank of short positions may choose order and moment.
    """

    due: Seconds = 20.0
    idle: Seconds = 2400.0
    late: Seconds = 300.0
    hints: Literal["auto", "off"] = "auto"

    @property
    def intervals(self) -> Intervals:
        """The same values as the schedule's type."""
        return Intervals(*(timedelta(seconds=s) for s in (self.due, self.idle, self.late)))


class Web(_Section):
    """Where the status page is served, and the token it demands; port 0: any free port."""

    host: Host = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    token: Annotated[SecretStr, AfterValidator(_token)] | None = None


class _Subscription(_Section):
    """The keys of an endpoint that do not depend on its destination."""

    name: Annotated[str, AfterValidator(_namespace)]
    events: Names = ("reported", "revised")
    codes: Names = ("*",)
    filter: str | None = None
    allow_http: bool = False
    allow_private: bool = False
    connections: Annotated[int, Field(ge=1, le=100)] = 8
    rate: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)] = 20.0


if TYPE_CHECKING:
    _Flagged = _Subscription
else:  # adds a key for each destination that a URL alone does not choose
    _Flagged = create_model(
        "_Flagged", __base__=_Subscription, **dict.fromkeys(flags(), (bool, False))
    )


def _destination(url: SecretStr, table: Mapping[str, Any]) -> Destination:
    """Return the destination chosen by a URL and the flags of its table."""
    return choose(url.get_secret_value(), _flags_of(table))


def _flags_of(table: Mapping[str, Any]) -> list[str]:
    return [flag for flag in flags() if table.get(flag)]


class Webhook(_Flagged):
    """One endpoint. `connections`, `rate`: per process. `wait`: how long events gather, seconds."""

    wait: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 60.0
    url: SecretStr
    secret: Annotated[Secrets, Field(validate_default=True)] = ()

    @field_validator("events", "codes", "filter")
    @classmethod
    def _understood(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401  of either key
        condition: Any = frozenset(value) if info.field_name == "events" else value
        Selection(**{str(info.field_name): condition})
        return value

    @field_validator("url")
    @classmethod
    def _allowed(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        if _is_reading(info):
            return url
        if len(given := _flags_of(info.data)) > 1:
            raise ValueError(f"it is of one service: leave all but one of {', '.join(given)} out")
        allowed = {key: info.data.get(key, False) for key in ("allow_http", "allow_private")}
        check_url(_destination(url, info.data), url.get_secret_value(), **allowed)
        return url

    @field_validator("secret")
    @classmethod
    def _fitting(cls, secrets: Secrets, info: ValidationInfo) -> Secrets:
        if _is_reading(info):
            return secrets
        url = info.data.get("url", SecretStr(""))  # absent if it was refused
        if "url" not in info.data and not secrets:
            return secrets  # whether any are needed depends on the URL
        texts = [secret.get_secret_value() for secret in secrets]
        check_secrets(_destination(url, info.data), url.get_secret_value(), texts)
        return secrets

    def endpoint(self) -> Endpoint:
        """Return it as delivery's type."""
        return Endpoint(
            self.name,
            self.url.get_secret_value(),
            tuple(secret.get_secret_value() for secret in self.secret),
            Selection(frozenset(self.events), self.codes, self.filter),
            allow_http=self.allow_http,
            allow_private=self.allow_private,
            connections=self.connections,
            rate=self.rate,
            destination=_destination(self.url, vars(self)).name,
            wait=timedelta(seconds=self.wait),
        )


class Config(_Section):
    """Everything an operator can set."""

    state_dir: PlainPath = Path(DEFAULT_STATE_DIR)
    log_level: Literal["info", "warning", "error"] = "info"
    opend: Annotated[tuple[Opend, ...], Field(min_length=1)] = (Opend(),)
    redis: Redis = Redis()
    watchlist: Watchlist = Watchlist()
    budget: Budget = Budget()
    schedule: Schedule = Schedule()
    web: Web = Web()
    webhooks: tuple[Webhook, ...] = ()

    def secrets(self) -> tuple[str, ...]:
        """Return every text that must not be shown, including passwords within URLs.

        A part of a webhook's URL is shown if it is a code, or a name that the operator gave to an
        endpoint, an account or the namespace: else the log would not say what it is about.
        """
        found = dict.fromkeys(_secrets_in(self))
        for text in tuple(found):
            _, _, rest = text.partition("://")
            named = parse_qsl(rest.partition("?")[2])
            found |= dict.fromkeys(value for name, value in named if name.endswith("password"))
            password = rest.rpartition("@")[0].partition(":")[2]
            found |= dict.fromkeys((password, unquote(password)) if password else ())
        names = {self.redis.namespace, *(gateway.account for gateway in self.opend)}
        names |= {webhook.name for webhook in self.webhooks}
        for webhook in self.webhooks:  # libraries log URLs in other forms, or parts of them
            parts = secrets_in_lines(webhook.url.get_secret_value())
            found |= dict.fromkeys(part for part in parts if not _is_shown(unquote(part), names))
            for secret in webhook.secret:
                found |= dict.fromkeys(secrets_in_key(secret.get_secret_value()))
        return tuple(found)


def _is_shown(text: str, names: Collection[str]) -> bool:
    """Return whether a part of a URL is one of these names, or a code."""
    if text in names:
        return True
    try:
        parse_code(text)
    except BadCode:
        return False
    return True


def _secrets_in(value: object) -> Iterator[str]:
    match value:
        case SecretStr():
            yield value.get_secret_value()
        case BaseModel():
            for _, inner in value:
                yield from _secrets_in(inner)
        case tuple():
            for inner in value:
                yield from _secrets_in(inner)


def load(
    file: Path | None,
    environment: Mapping[str, str],
    warnings: list[str] | None = None,
    *,
    reading: bool = False,
    only: Collection[str] = (),
) -> Config:
    """Return the configuration; raises ConfigError with one line per problem.

    Args:
        file: The file to read; None: `POLLER_CONFIG`, else `config/poller.toml` if it exists.
        environment: The environment variables.
        warnings: A line is added for each secret file that every user can read.
        reading: For commands that only read Redis: secrets of the page and the webhooks, and the
            watchlist's files, are neither read nor checked.
        only: For commands that need only these sections or keys: the others keep their defaults.
    """
    chosen = chosen_file(file, environment)
    source = str(chosen or "configuration")
    problems: list[str] = []
    raw, origin, notes = _written(chosen, environment, problems)
    if chosen:
        _settle_paths(raw, chosen, notes)
    if reading:
        without_secrets(raw)
    if only:
        raw = part(raw, only)
    problems += [given_twice(key, origin) for key in credentials.given_twice(raw)]
    if directory := environment.get("CREDENTIALS_DIRECTORY"):
        credentials.put_in_place(raw, Path(directory))
    if warnings is not None:
        warnings += credentials.exposed(credentials.named_in(raw))
    unread, files = credentials.read(raw)
    origin = replace(origin, files=files)
    problems += [f"{origin.of(key)}: {problem}" for key, problem in unread.items()]
    context = {_READING: reading}
    shifted = False  # whether tables of a list have other numbers than they were written under
    try:
        config = Config.model_validate(raw, context=context)
    except ValidationError as invalid:
        errors = invalid.errors()
        # a refused table leaves its list too short, which is not another problem
        errors = [e for e in errors if e["type"] != "too_short"] or errors
        problems += [
            refusal(error, raw, origin, Config)
            for error in errors
            if not follows(error["loc"], unread)
        ]
        shifted = any(error["loc"][0] in LISTS for error in errors)
        config = _valid_part(raw, errors, context)
    if not reading:
        problems += [
            f"{each.origin(source, {} if shifted else origin.variables)}: {each.words}"
            for each in _contradictions(config)
        ]
    if problems:
        raise ConfigError(problems)
    return config


def is_blank(chosen: Path) -> bool:
    """Return whether a configuration is a regular file without keys."""
    return chosen.is_file() and not read(chosen)


def _written(
    chosen: Path | None, environment: Mapping[str, str], problems: list[str]
) -> tuple[dict[str, Any], Origin, dict[str, list[str]]]:
    """Return the unvalidated values of file and environment, with the file's paths made absolute.

    Also returns where each key was written, and notes on the file's paths by key.
    """
    raw: dict[str, Any] = read(chosen) if chosen else {}
    notes = anchor(raw, chosen) if chosen else {}
    variables = overlay(raw, environment, names_in(Config), problems)
    effective = {key: lines for key, lines in notes.items() if not _is_overridden(key, variables)}
    return raw, Origin(str(chosen) if chosen else "configuration", variables), effective


def _is_overridden(key: str, variables: Collection[str]) -> bool:
    """Return whether a variable sets a dotted key, a table above it or its other spelling."""
    table, _, last = key.rpartition(".")
    names = [key, *([f"{table}.{other}"] if (other := twin(last)) else [])]
    return any(f"{name}.".startswith(f"{known}.") for name in names for known in variables)


def _settle_paths(raw: dict[str, Any], chosen: Path, notes: dict[str, list[str]]) -> None:
    """Default the state directory to one beside the file, and log the notes on paths."""
    # a device like /dev/null stands for an empty configuration, and nothing is beside it
    if chosen.is_file() and STATE_DIR not in raw:
        raw[STATE_DIR] = state_dir_of(DEFAULT_STATE_DIR, chosen, notes.setdefault(STATE_DIR, []))
    for key, lines in notes.items():
        for line in lines:
            log.write("warning", f"{chosen}: {key}: {line}")


def origin_of_keys(file: Path | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Return dotted key → where it was written; absent keys have their default."""
    raw, origin, _ = _written(chosen_file(file, environment), environment, [])
    return {key: origin.of(key) for key in dotted(raw)}


def _valid_part(
    raw: Mapping[str, Any], errors: Sequence[Any], context: Mapping[str, bool]
) -> Config:
    """Return the configuration without its refused tables, to check the rest for contradictions."""
    refused = {error["loc"][: 2 if error["loc"][0] in LISTS else 1] for error in errors}
    rest: dict[str, Any] = {}
    for key, value in raw.items():
        if (key,) in refused:
            continue
        kept = value
        if key in LISTS:
            kept = [table for n, table in enumerate(value) if (key, n) not in refused]
        if kept:
            rest[key] = kept
    return Config.model_validate(rest, context=context)


def chosen_file(file: Path | None, environment: Mapping[str, str]) -> Path | None:
    """Return the file to read: `file`, else POLLER_CONFIG, else the default if it exists."""
    if file is not None:
        return file
    if named := environment.get(CONFIG):
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def secret_files(file: Path | None, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files that hold secrets, as the configuration names them."""
    raw, _, _ = _written(chosen_file(file, environment), environment, [])
    return credentials.named_in(raw)


class _Contradiction(NamedTuple):
    """What contradicts, in words.

    Attributes:
        place: The dotted key or section that is named if a file has it.
        keys: The dotted keys that may be mended; the variable of the first that has one is named.
    """

    place: str
    keys: tuple[str, ...]
    words: str

    def origin(self, source: str, variables: Mapping[str, str]) -> str:
        """Return what to name: a variable, of those by dotted key, or the place in `source`."""
        named = (variables[key] for key in self.keys if key in variables)
        return next(named, f"{source}: {self.place}")


def _contradictions(config: Config) -> Iterator[_Contradiction]:
    """Yield every contradiction between keys."""
    if len({gateway.rsa_private_key_file for gateway in config.opend}) > 1:
        yield _Contradiction(
            "opend",
            tuple(f"opend.{n}.rsa_private_key_file" for n in range(len(config.opend))),
            "the SDK encrypts all connections with one key or none: give every gateway the same "
            "rsa_private_key_file",
        )
    for name, numbers in _twice(webhook.name for webhook in config.webhooks):
        yield _Contradiction(
            "webhooks",
            tuple(f"webhooks.{n}.name" for n in numbers),
            f"{name} is the name of two: each keeps a queue under its name",
        )
    if config.web.token is None and not names_loopback(config.web.host):
        yield _Contradiction(
            "web.host",
            ("web.host",),
            f"{config.web.host} can be reached from other machines: set web.token_file, or use "
            "127.0.0.1",
        )
    for (host, port), numbers in _twice((gate.host, gate.port) for gate in config.opend):
        yield _Contradiction(
            "opend",
            tuple(f"opend.{n}.{key}" for n in numbers for key in ("port", "host")),
            f"{host}:{port} is listed twice",
        )


def _twice(values: Iterator[T]) -> Iterator[tuple[T, list[int]]]:
    """Yield each value that occurs more than once, with its indexes, the last one first."""
    found: dict[T, list[int]] = defaultdict(list)
    for number, value in enumerate(values):
        found[value].insert(0, number)
    yield from ((value, numbers) for value, numbers in found.items() if len(numbers) > 1)
