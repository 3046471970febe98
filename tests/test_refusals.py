"""What is refused: in an operator's words, with the place and what to write instead. In process."""

import json
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cyclopts import CycloptsError
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from poller.cli.history import history
from poller.cli.main import cli, refusal
from poller.cli.release import release
from poller.cli.runner import WRONG, CommandFailed, report
from poller.cli.tail import MOST_LAST, tail
from poller.cli.webhookcli import replay
from poller.errors import ConfigError
from poller.settings.config import Config, load, origin_of_keys, secret_files
from poller.settings.variables import misspelt, names_in

SIGNED = 'secret = "whsec_' + "A" * 32 + '"\n'
DESK = '[[webhooks]]\nname = "desk"\nurl = "https://example.org/hook"\n'
NOW = datetime(2026, 5, 8, tzinfo=UTC)
VENDOR = ("Input", "pydantic", "<class", "instance of", "tuple", "dictionary", "required")


def problems(folder: Path, text: str, **environment: str) -> tuple[str, ...]:
    """Return the lines a configuration is refused with; `FOLDER` in it is the folder."""
    file = folder / "poller.toml"
    file.write_text(text.replace("FOLDER", str(folder)), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, environment)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("web = []", ["web: write it as a table: [web]"]),
        ("[[web]]", ["web: write it as a table: [web]"]),
        ("[opend]", ["opend: write it as a table in a list", "[[opend]]"]),
        ("opend = []", ["[[opend]]"]),
        ("webhooks = 3", ["[[webhooks]]"]),
        ("webhooks = [3]", ["webhooks.0: write it as a table in a list"]),
        ("budget = 3", ["budget: write it as a table: [budget]"]),
        ("watchlist.codes = 3", ['give a list: codes = ["HK.00700", "US.AAPL"]']),
        ("watchlist.files = [3]", ["watchlist.files.0: give a path in quotes"]),
        ('log_level = "loud"', ["log_level: write 'info', 'warning' or 'error'"]),
        ("budget.requests = 1.5", ["give a whole number (it is 1.5)"]),
        ("budget.requests = true", ["budget.requests: give a whole number (it is True)"]),
        ("budget.period = true", ["budget.period: give a number (it is True)"]),
        ('watchlist.weights = { "HK.*" = true }', ["HK.*: give a number (it is True)"]),
        ('schedule.due = "soon"', ["give a number (it is 'soon')"]),
        ("web.port = 99999", ["give 65535 or less"]),
        (f'[[webhooks]]\nurl = "https://a.org"\n{SIGNED}', ['missing; write name = "desk"']),
        (f'[[webhooks]]\nname = "desk"\n{SIGNED}', ['missing; write url = "https://']),
        (f'{DESK}{SIGNED}codes = ["HK["]', ["'HK[' fits no code"]),
        (f'{DESK}{SIGNED}codes = ["HK.*", "CN.*"]', ["'CN.*' fits no code"]),
        (f'{DESK}{SIGNED}codes = ["HK.?a*"]', ["fits no code; write 'HK.?A*'"]),
        ('watchlist.weights = { "CN.*" = 1 }', ["'CN.*' fits no code"]),
    ],
)
def test_one_line_with_key_and_cure(tmp_path: Path, text: str, parts: list[str]) -> None:
    """The key, and what to write; none of the words of what checks it."""
    (line,) = problems(tmp_path, text)
    for part in (str(tmp_path / "poller.toml"), *parts):
        assert part in line
    assert not [word for word in VENDOR if word in line]


@pytest.mark.parametrize(
    ("variable", "value", "part"),
    [
        ("POLLER_WATCHLIST__CODES", "US.AAPL,HK.1", "'HK.00001' (it is 'HK.1')"),
        ("POLLER_WATCHLIST__CODES", "[HK.00700]", "write a list as a,b,c"),
        ("POLLER_REDIS__URL", "redis://127.0.0.1:99999/0", "a port is a number from 1 to 65535"),
        ("POLLER_REDIS__URL", "redis://h:1/first", "redis://HOST:6379/1 for database 1"),
        ("POLLER_REDIS__URL", "unix:///run/s?db=\u0663", "its option db is not a number"),
        ("POLLER_REDIS__URL", "redis://h?socket_timeout=0.0", "not a number of seconds above 0"),
        ("POLLER_REDIS__URL", f"redis://h?socket_timeout={'9' * 400}", "not a number of seconds"),
        ("POLLER_OPEND__2__PORT", "1", "the next one is number 1"),
        ("POLLER_WATCHLIST__CODES", "[" * 50_000, "nested more than"),
        ("POLLER_WATCHLIST__FUTU_GROUPS", os.fsdecode(b"\xd7\xd4"), "not text in UTF-8"),
        ("POLLER_WATCHLIST__FUTU_GROUPS", r'["\ud800"]', "not text in UTF-8"),
        (
            "POLLER_WATCHLIST__FILES",
            os.fsdecode(b"/none/\xff.txt"),
            r"\udcff.txt: there is no such",
        ),
        ("POLLER_WATCHLIST__WEIGHTS__hk.00700", "3", "'hk.00700' fits no code; write 'HK.00700'"),
        ("POLLER_WATCHLIST__WEIGHTS__HK.00700", "much", "give a number (it is 'much')"),
        ("POLLER_WATCHLIST__WEIGHTS", '{"HK.*"=2}', 'write a table as {"HK.*": 2}'),
        ("POLLER_WATCHLIST__WEIGHTS", "HK.*=2", 'write it in JSON, as {"HK.*": 2}'),
        ("POLLER_WATCHLIST__WEIGHTS", '{"HK.*": true}', "give a number (it is True)"),
        ("POLLER_WATCHLIST__CODES__0", "HK.1", "write 'HK.00001' (it is 'HK.1')"),
        ("POLLER_WATCHLIST__CODES__1", "HK.00001", "the next one is number 0"),
        ("POLLER_WEB__HOST", "[::1]", "without brackets: ::1"),
        ("POLLER_OPEND__HOST", "[::1]", "without brackets: ::1"),
        ("POLLER_WEB__HOST", "::", ":: can be reached from other machines"),
        ("POLLER_OPEND__1__HOST", "127.0.0.1", "127.0.0.1:11111 is listed twice"),
        ("POLLER_OPEND__01__PORT", "6", "write POLLER_OPEND__1__PORT"),
        ("POLLER_OPEND__\u0661__PORT", "6", "write POLLER_OPEND__1__PORT"),
        ("POLLER_OPEND__00__PORT", "6", "write POLLER_OPEND__0__PORT"),
        ("POLLER_OPEND__" + "0" * 5_000 + "__PORT", "6", "write POLLER_OPEND__0__PORT"),
        ("POLLER_WEBHOOKS__0", "null", "write it in JSON"),
        ("POLLER_OPEND", '[{"prot": 1}]', "unknown key; did you mean 'port'?"),
    ],
)
def test_a_variable_is_named(tmp_path: Path, variable: str, value: str, part: str) -> None:
    """What came from the environment is told with the variable, not with a file."""
    (line,) = problems(tmp_path, 'state_dir = "state"', **{variable: value})
    assert line.startswith(f"{variable}: ")
    assert part in line


def test_a_variable_may_set_one_weight_or_one_code(tmp_path: Path) -> None:
    """The name of the code is taken as it is written, and what the file has beside it stays."""
    file = tmp_path / "poller.toml"
    file.write_text('[watchlist]\nweights = { "HK.*" = 2, "HK.00700" = 5 }\n')
    environment = {
        "POLLER_WATCHLIST__WEIGHTS__HK.00700": "3",
        "POLLER_WATCHLIST__WEIGHTS__US.*": "0.5",
        "POLLER_WATCHLIST__CODES__0": "US.MSFT",
    }
    watchlist = load(file, environment).watchlist
    assert watchlist.weights == {"HK.*": 2, "HK.00700": 3, "US.*": 0.5}
    assert watchlist.codes == ("US.MSFT",)
    assert load(None, {"POLLER_WATCHLIST__WEIGHTS": '{"HK.*": 2}'}).watchlist.weights == {"HK.*": 2}


def test_two_variables_for_one_key() -> None:
    """The number 0 may be left out; then both must say the same."""
    both = {"POLLER_OPEND__PORT": "5", "POLLER_OPEND__0__PORT": "6"}
    with pytest.raises(ConfigError) as caught:
        load(Path("/dev/null"), both)
    (line,) = caught.value.problems
    for variable in both:
        assert variable in line
    assert load(Path("/dev/null"), dict.fromkeys(both, "5")).opend[0].port == 5


def test_a_text_may_begin_like_json(tmp_path: Path) -> None:
    """Where neither a list nor a table belongs, it is a text as in the file."""
    environment = {
        "POLLER_STATE_DIR": str(tmp_path / "[x]"),
        "POLLER_WEBHOOKS__0__NAME": "desk",
        "POLLER_WEBHOOKS__URL": "https://example.org/",
        "POLLER_WEBHOOKS__SECRET": "whsec_" + "A" * 32,
        "POLLER_WEBHOOKS__0__FILTER": "[1, 2].size() == 2",
    }
    with pytest.raises(ConfigError) as caught:  # as the text is no filter, and not as it is no JSON
        load(None, environment)
    (line,) = caught.value.problems
    assert line.startswith("POLLER_WEBHOOKS__0__FILTER: ")
    assert "JSON" not in line


@pytest.mark.parametrize("value", ['"redis://:hunter2@h"', '["hunter2"]', "[3]"])
@pytest.mark.parametrize("key", ["redis", "web", "webhooks"])
def test_what_is_in_a_tables_place_is_not_shown(tmp_path: Path, key: str, value: str) -> None:
    """It may be the secret that belongs into the table."""
    assert "hunter2" not in str(problems(tmp_path, f"{key} = {value}"))
    variable = f"POLLER_{key.upper()}"
    assert "hunter2" not in str(problems(tmp_path, "", **{variable: value.strip('"')}))


@pytest.mark.parametrize(
    ("text", "environment", "named"),
    [
        (DESK + SIGNED, {"POLLER_WEBHOOKS__1__RATE": "3"}, "poller.toml: webhooks: desk is the"),
        ("", {"POLLER_WEBHOOKS__1__NAME": "desk"}, "POLLER_WEBHOOKS__1__NAME: desk is the name of"),
        ("", {"POLLER_OPEND__1__RSA_PRIVATE_KEY_FILE": "k"}, "RSA_PRIVATE_KEY_FILE: the SDK"),
    ],
)
def test_a_contradiction_is_told_with_the_variable_that_can_mend_it(
    tmp_path: Path, text: str, environment: dict[str, str], named: str
) -> None:
    """A variable that sets another key of the same table has no part in it."""
    other = DESK.replace('"desk"', '"other"') if not text else DESK
    gateways = "[[opend]]\n[[opend]]\nport = 2\n"
    lines = problems(tmp_path, f"{gateways}{DESK}{SIGNED}{other}{SIGNED}", **environment)
    (line,) = lines
    assert named in line


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("POLLER_OPEND_PORT", "POLLER_OPEND__PORT"),
        ("POLLER_OPEND_1_PORT", "POLLER_OPEND__1__PORT"),
        ("POLLER_OPEND_RSA_PRIVATE_KEY_FILE", "POLLER_OPEND__RSA_PRIVATE_KEY_FILE"),
        ("POLLER_WEBHOOKS_0_URL", "POLLER_WEBHOOKS__0__URL"),
        ("POLLER_WEBHOOK__12__SECRET_FILE", "POLLER_WEBHOOKS__12__SECRET_FILE"),
        ("POLLER_WEBHOOKS_SECRET", "POLLER_WEBHOOKS__SECRET"),
        ("POLLER_REDIS_URL_FILE", "POLLER_REDIS__URL_FILE"),
        ("POLLER_WATCHLIST_FUTU_GROUPS", "POLLER_WATCHLIST__FUTU_GROUPS"),
        ("POLLER_STATE__DIR", "POLLER_STATE_DIR"),
        ("POLLER_STATE_DIR__X", "POLLER_STATE_DIR"),
        ("POLLER_LOGLEVEL", "POLLER_LOG_LEVEL"),
        ("POLLER__WEB__PORT", "POLLER_WEB__PORT"),
        ("POLLER_WEB_PORT", "POLLER_WEB__PORT"),
        ("POLLER_PORT", "POLLER_WEB__PORT"),
        ("POLLER_BUDGTE__REQUESTS", "POLLER_BUDGET__REQUESTS"),
        ("POLLER_BUDGET__REQUEST", "POLLER_BUDGET__REQUESTS"),
        ("POLLER_CONFIG_FILE", "POLLER_CONFIG"),
        ("POLLER_config", "POLLER_CONFIG"),
    ],
)
def test_a_misspelt_variable_is_answered_with_the_one_that_is_meant(
    written: str, meant: str
) -> None:
    """Whole, so that it can be copied: two underscores are what is forgotten most often."""
    with pytest.raises(ConfigError) as caught:
        load(Path("/dev/null"), {written: "8080"})
    assert caught.value.problems == (f"{written}: unknown key; did you mean {meant}?",)


@pytest.mark.parametrize("key", sorted({*names_in(Config)}))
def test_every_variable_is_found_however_its_underscores_are_written(key: str) -> None:
    """With one where two belong, and with two where one does: for each key there is."""
    name = key.replace("#", "0")
    for written in {name.replace("__", "_"), name.replace("_", "__")} - {name}:
        told = misspelt(written, names_in(Config))
        assert told == f"unknown key; did you mean {name}?"
    assert misspelt(name, names_in(Config)) is None


def test_names_in_small_letters() -> None:
    """A setting's is told, as it would not count; any other program may use the word."""
    with pytest.raises(ConfigError) as caught:
        load(Path("/dev/null"), {"poller_web__port": "1", "Poller_Opend_Port": "1"})
    told = {line.partition(":")[0]: line.rpartition(" ")[2] for line in caught.value.problems}
    assert told == {
        "poller_web__port": "POLLER_WEB__PORT",
        "Poller_Opend_Port": "POLLER_OPEND__PORT",
    }
    assert load(Path("/dev/null"), {"poller_home": "/srv", "poller": "1"}) == Config()


INJECTED = {
    "POLLER_SERVICE_HOST": "10.0.0.1",
    "POLLER_SERVICE_PORT": "8080",
    "POLLER_SERVICE_PORT_HTTP": "8080",
    "POLLER_SERVICE_PORT_METRICS_2": "9090",
    "POLLER_PORT": "tcp://10.0.0.1:8080",
    "POLLER_PORT_8080_TCP": "tcp://10.0.0.1:8080",
    "POLLER_PORT_8080_TCP_PROTO": "tcp",
    "POLLER_PORT_8080_TCP_PORT": "8080",
    "POLLER_PORT_8080_TCP_ADDR": "10.0.0.1",
    "POLLER_PORT_53_UDP": "udp://[fd00::1]:53",
    "POLLER_PORT_53_UDP_ADDR": "fd00::1",
    "POLLER_PORT_36412_SCTP_PROTO": "sctp",
    "POLLER_WEB_SERVICE_HOST": "10.0.0.2",
    "POLLER_WEB_SERVICE_PORT": "80",
    "POLLER_WEB_PORT": "tcp://10.0.0.2:80",
    "POLLER_WEB_PORT_80_TCP_ADDR": "10.0.0.2",
    "POLLER_REDIS_PORT": "tcp://10.0.0.3:6379",
    "POLLER_NAME": "/shop/poller",
    "POLLER_1_NAME": "/shop_web_1/poller_1",
    "POLLER_1_PORT": "tcp://172.17.0.5:8080",
    "POLLER_1_PORT_8080_TCP_ADDR": "172.17.0.5",
    "POLLER_PORT_8000_TCP_START": "tcp://172.17.0.5:8000",
    "POLLER_PORT_8000_TCP_PORT_END": "8010",
    "POLLER_ENV_PATH": "/bin",
    "POLLER_ENV_X__Y": "1",
    "POLLER_1_ENV_GPG_KEY": "0",
}


@pytest.mark.parametrize("variable", INJECTED)
def test_what_kubernetes_and_docker_set_is_passed_over(variable: str) -> None:
    """For a service named poller, or poller-web; each alone, as an old Docker sets but some."""
    assert load(Path("/dev/null"), {variable: INJECTED[variable]}) == Config()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POLLER_WEB__PORT", "tcp://10.0.0.1:8080"),
        ("POLLER_PORT", "8080"),
        ("POLLER_WEB_PORT", "8080"),
        ("POLLER_SERVICE_PORT", "http"),
        ("POLLER_NAME", "desk"),
        ("POLLER_PORT_8080", "tcp://10.0.0.1:8080"),
        ("POLLER_SERVICE", "1"),
        ("POLLER_HOST", "10.0.0.1"),
    ],
)
def test_what_only_resembles_it_is_refused(variable: str, value: str) -> None:
    """A port without an address, a name that is no container's: somebody meant a setting."""
    with pytest.raises(ConfigError) as caught:
        load(Path("/dev/null"), {variable: value})
    assert caught.value.problems[0].startswith(f"{variable}: ")


@given(
    st.dictionaries(
        st.from_regex(r"(?i)\APOLLER_?[A-Z0-9_.\u00e9]{0,30}\Z"),
        st.text(st.characters(exclude_characters="\0"), max_size=20),
        max_size=4,
    )
)
def test_any_environment_is_taken_or_refused(environment: dict[str, str]) -> None:
    """Nothing but the one error leaves it, and every line begins with a variable or the file."""
    taken_or_refused(environment)


KEYS = st.sampled_from(sorted(names_in(Config))).map(lambda name: name.replace("#", "0"))
TEXTS = st.sampled_from(
    [
        "",
        "HK.00700",
        "HK.*",
        "https://a.org",
        "http://[",
        "redis://h:x",
        "redis://h?db=1",
        ",",
        "\0",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["url", "port", "url_file", "codes", ""]), inner)
    ),
    max_leaves=6,
)


@given(st.dictionaries(KEYS, TEXTS | st.text() | JSON.map(json.dumps), max_size=4))
def test_any_value_is_taken_or_refused(environment: dict[str, str]) -> None:
    """Of every shape, at every key: for the service, and for a command that only reads."""
    taken_or_refused(environment)


def taken_or_refused(environment: dict[str, str]) -> None:
    """Load a configuration; fail for any error but the one there is, or a line without a place."""
    for reading in (False, True):
        try:
            load(Path("/dev/null"), environment, reading=reading)
        except ConfigError as refused:
            for line in refused.problems:
                assert line.startswith((*environment, "/dev/null"))


@pytest.mark.parametrize("shape", ["web = []", "[[web]]\nport = 2", "web = 3"])
def test_file_and_environment_of_clashing_shapes(tmp_path: Path, shape: str) -> None:
    """Both are told; neither is a traceback."""
    lines = problems(tmp_path, shape, POLLER_WEB__PORT="1")
    assert len(lines) == 2
    assert lines[0].startswith("POLLER_WEB__PORT: there is no such key: web is ")
    assert "web: write it as a table: [web]" in lines[1]


def test_a_second_gateway_beside_the_default_one() -> None:
    """Without a file the first gateway is there all the same."""
    config = load(Path("/dev/null"), {"POLLER_OPEND__1__PORT": "1111"})
    assert [gateway.port for gateway in config.opend] == [11111, 1111]


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ('"FOLDER/none"', "none: there is no such file"),
        ('"FOLDER"', "is a directory: name a regular file"),
        ('"FOLDER/binary"', "binary:1: is text in UTF-16"),
        ("3", "give the path of a file in quotes"),
        ('["FOLDER/none"]', "none: there is no such file"),
    ],
)
@pytest.mark.parametrize(
    ("table", "key"),
    [
        (DESK, "webhooks.0.secret_file"),
        ('[[webhooks]]\nname = "desk"\n', "webhooks.0.url_file"),
        ("[redis]\n", "redis.url_file"),
        ('[web]\nhost = "0.0.0.0"\n', "web.token_file"),
    ],
)
def test_an_unreadable_file_is_one_problem(
    tmp_path: Path, table: str, key: str, value: str, part: str
) -> None:
    """With the configuration's file and the key; what would follow from it is no problem."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (line,) = problems(tmp_path, f"{table}{key.rpartition('.')[2]} = {value}")
    assert line.startswith(f"{tmp_path / 'poller.toml'}: {key}: ")
    assert part in line


PAIRS = {
    "redis.url": ("redis://own:1", "redis://other:2"),
    "web.token": ("a-token-of-the-file", "a-token-of-the-variable"),
    "webhooks.0.url": ("https://example.org/own", "https://example.org/other"),
    "webhooks.0.secret": (f"whsec_{'A' * 32}", f"whsec_{'B' * 32}"),
}
SPELLINGS = ("", "_file")


def one_pair(key: str, ending: str, value: str) -> str:
    """Return a configuration that has a key in one spelling, and what else its table needs."""
    place, _, name = key.rpartition(".")
    desk = {"name": "desk", "url": "https://example.org/", "secret": PAIRS["webhooks.0.secret"][0]}
    table = desk if place.startswith("webhooks") else {}
    table = {k: v for k, v in table.items() if k != name} | {f"{name}{ending}": value}
    head = "[[webhooks]]" if place.startswith("webhooks") else f"[{place}]"
    return "\n".join([head, *(f"{k} = {json.dumps(v)}" for k, v in table.items()), ""])


def told_of(config: Config, key: str) -> str:
    """Return the secret that a configuration has at a key."""
    found: object = config
    for step in key.split("."):
        found = found[int(step)] if isinstance(found, tuple) else getattr(found, step)
    (secret,) = found if isinstance(found, tuple) else (found,)
    assert isinstance(secret, SecretStr)
    return secret.get_secret_value()


@pytest.mark.parametrize("key", PAIRS)
@pytest.mark.parametrize("below", SPELLINGS)
@pytest.mark.parametrize("above", SPELLINGS)
def test_a_variable_of_either_spelling_overrides_both(
    tmp_path: Path, key: str, below: str, above: str
) -> None:
    """A command that is pointed at another Redis writes there, and it is told where that is from.

    The file's path may be spoiled, since nothing reads it.
    """
    own, other = PAIRS[key]
    (tmp_path / "other").write_text(f"{other}\n")
    file = tmp_path / "poller.toml"
    file.write_text(one_pair(key, below, str(tmp_path / "none") if below else own))
    variable = f"POLLER_{key.replace('.', '__')}{above}".upper()
    environment = {variable: str(tmp_path / "other") if above else other}
    assert told_of(load(file, environment), key) == other
    origins = origin_of_keys(file, environment)
    written = {name: where for name, where in origins.items() if name.startswith(key)}
    assert written == {f"{key}{above}": variable}
    assert secret_files(file, environment) == ((tmp_path / "other",) if above else ())


@pytest.mark.parametrize("key", PAIRS)
def test_both_spellings_in_one_table_are_refused(tmp_path: Path, key: str) -> None:
    """Each is named; a variable settles which counts."""
    own, other = PAIRS[key]
    (tmp_path / "own").write_text(own)
    name = key.rpartition(".")[2]
    text = one_pair(key, "", own) + f'{name}_file = "own"\n'
    (line,) = problems(tmp_path, text)
    assert line.startswith(f"{tmp_path / 'poller.toml'}: {key}: {key}_file is set as well: ")
    assert f"remove {key} to read the file" in line
    assert own not in line
    variable = f"POLLER_{key.replace('.', '__')}".upper()
    assert told_of(load(tmp_path / "poller.toml", {variable: other}), key) == other


@pytest.mark.parametrize("key", PAIRS)
def test_both_spellings_as_variables_are_refused(tmp_path: Path, key: str) -> None:
    """By the variables' names, of which one is to be removed."""
    own, other = PAIRS[key]
    (tmp_path / "other").write_text(other)
    variable = f"POLLER_{key.replace('.', '__')}".upper()
    both = {variable: own, f"{variable}_FILE": str(tmp_path / "other")}
    (line,) = problems(tmp_path, one_pair(key, "", own), **both)
    assert line.startswith(f"{variable}: {variable}_FILE is set as well: remove {variable} ")
    assert own not in line
    assert other not in line


def test_both_spellings_in_the_json_of_a_variable(tmp_path: Path) -> None:
    """The table's variable is named, with the keys in it, or the other variable."""
    (tmp_path / "url").write_text("redis://own:1")
    table = {"url": "redis://own:1", "url_file": str(tmp_path / "url")}
    (line,) = problems(tmp_path, "", POLLER_REDIS=json.dumps(table))
    assert line.startswith("POLLER_REDIS: redis.url_file is set as well: remove redis.url ")
    del table["url"]
    both = {"POLLER_REDIS": json.dumps(table), "POLLER_REDIS__URL": "redis://own:1"}
    (line,) = problems(tmp_path, "", **both)
    assert line.startswith("POLLER_REDIS__URL: redis.url_file is set as well: ")


def test_a_command_that_reads_is_not_refused_for_the_secrets_of_others(tmp_path: Path) -> None:
    """Only Redis's may not be there twice."""
    file = tmp_path / "poller.toml"
    file.write_text(f'{DESK}url_file = "none"\n{SIGNED}secret_file = "none"\n')
    assert load(file, {}, reading=True).redis.url is None
    file.write_text('[redis]\nurl = "redis://a"\nurl_file = "none"\n')
    with pytest.raises(ConfigError, match=r"redis\.url_file is set as well"):
        load(file, {}, reading=True)


def test_a_signing_secret_that_is_not_there_can_be_made(tmp_path: Path) -> None:
    """The line has the command that makes the file, readable by its owner alone."""
    text = f'{DESK}secret_file = "my desk.secret"'
    (line,) = problems(tmp_path, text)
    command = line.partition("make it: ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    assert load(tmp_path / "poller.toml", {}).webhooks[0].secret
    assert (tmp_path / "my desk.secret").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("table", "key"),
    [
        (DESK, "webhooks.0.secret_file"),
        (f'[[webhooks]]\nname = "desk"\n{SIGNED}', "webhooks.0.url_file"),
        ("[redis]\n", "redis.url_file"),
        ("[web]\n", "web.token_file"),
    ],
)
@pytest.mark.parametrize("by_variable", [False, True])
@pytest.mark.parametrize(
    ("content", "part"),
    [
        (" \n", "it is empty"),
        ("first-text-of-two\nsecond-text-of-two\n", "there are 2"),
        ("http://[", ""),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_the_file(
    tmp_path: Path, table: str, key: str, content: str, part: str, *, by_variable: bool
) -> None:
    """And with the key or variable that names it, but not with what is in it."""
    (tmp_path / "secret").write_text(content)
    variable = f"POLLER_{key.replace('.', '__')}".upper()
    if by_variable:
        lines = problems(tmp_path, table, **{variable: str(tmp_path / "secret")})
    else:
        lines = problems(tmp_path, f'{table}{key.rpartition(".")[2]} = "secret"')
    place = variable if by_variable else f"{tmp_path / 'poller.toml'}: {key}"
    (line,) = lines
    assert line.startswith(f"{place}: {tmp_path / 'secret'}: ")
    if "secret_file" in key and "two" in content:  # while rotating there may be several
        assert "whsec_" in line
    else:
        assert part in line
    for word in content.split():
        assert word not in line


@pytest.mark.parametrize("value", ['""', '" , "', "[]", '[""]'])
def test_a_key_that_names_no_file_is_refused(tmp_path: Path, value: str) -> None:
    """An empty path would be the directory of the configuration."""
    (line,) = problems(tmp_path, f"[redis]\nurl_file = {value}")
    assert "redis.url_file: it is empty: write a path" in line


def test_a_comma_may_be_in_a_secrets_path(tmp_path: Path) -> None:
    """What exists as a whole is one file; else the line says that commas separate."""
    (tmp_path / "a,b").mkdir()
    secret = "whsec_" + "A" * 32
    (tmp_path / "a,b/c").write_text(secret)
    (tmp_path / "d").write_text(secret)
    file = tmp_path / "poller.toml"
    variable = "POLLER_WEBHOOKS__0__SECRET_FILE"
    file.write_text(DESK)
    by_variable = load(file, {variable: f"{tmp_path}/a,b/c"})
    file.write_text(f'{DESK}secret_file = "a,b/c"')
    for config in (load(file, {}), by_variable):
        (found,) = config.webhooks[0].secret
        assert found.get_secret_value() == secret
    assert secret_files(file, {}) == (tmp_path / "a,b/c",)
    file.write_text(f'{DESK}secret_file = ["a,b/c", "d"]')
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "d").write_text(secret)
    assert len(load(file, {"CREDENTIALS_DIRECTORY": str(credentials)}).webhooks[0].secret) == 2
    (line,) = problems(tmp_path, f'{DESK}secret_file = "a,b/none"')
    assert "commas separate paths" in line
    assert "umask" not in line


def test_contradictions_are_told_beside_other_problems(tmp_path: Path) -> None:
    """Twins and a page without a token do not wait until the rest is mended."""
    lines = problems(
        tmp_path,
        f'[web]\nhost = "0.0.0.0"\n[[opend]]\n[[opend]]\n[[opend]]\nport = "x"\n'
        f"{DESK}{SIGNED}{DESK}{SIGNED}{DESK}rate = 0\n[budget]\nrequests = 0",
    )
    text = "\n".join(lines)
    for part in ("opend.2.port", "rate", "webhooks.2.secret", "budget.requests"):
        assert part in text
    for part in ("desk is the name of two", "web.host", "127.0.0.1:11111 is listed twice"):
        assert part in text
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("line", "cure"),
    [
        ("history HK.00700 --as-known-at soon", "like 2026-04-30, or 2026-04-30T09:30:00+08:00."),
        ("backfill HK.00700 --since soon", "like 2026-04-30."),
        ("quarantine release HK.00700 soon", "like 2026-04-30."),
        ("tail --count many", "Give a whole number."),
        ("tail --count 1.5", "Give a whole number."),
        ("tail -n many", "Give a whole number."),
        ("release", "See: poller release --help"),
        ("release HK soon", "like 2026-04-30."),
        ("release HK --top 1.5", "Give a whole number."),
        ("export", "See: poller export --help"),
        ("export --format xlsx", 'Choose from: "csv", "json", "parquet".'),
        (
            "export --format csv --as-known-at 2026-13-01",
            "like 2026-04-30, or 2026-04-30T09:30:00+08:00.",
        ),
        ("simulate --weeks 1.5", "Give a whole number."),
        ("--config poller.toml check", "poller check --config FILE"),
    ],
)
def test_a_wrong_option_shows_the_form(
    line: str, cure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is accepted stands behind what is not, in the same line."""
    with pytest.raises(CycloptsError) as caught:
        cli.parse_args(line.split(), exit_on_error=False, print_error=False)
    assert report(refusal(caught.value)) == WRONG
    told = capsys.readouterr().err
    assert told.rstrip().endswith(cure)
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("call", "option"),
    [
        (lambda: tail(from_=str(1 << 64)), "--from '18446744073709551616'"),
        (lambda: tail(from_="1-2-3"), "--from '1-2-3'"),
        (lambda: tail(last=-1), "-n -1: give a number from 0"),
        (lambda: tail(last=MOST_LAST + 1), "--from 0"),
        (lambda: tail(last=3, from_="0"), "give one of them"),
        (lambda: tail(count=0), "--count 0"),
        (history, "name at least one code"),
        (lambda: release("SH"), "'SH' is no market: write HK or US"),
        (lambda: release("HK", top=0), "--top 0"),
        (lambda: release("HK", sort="days_to_cover"), "HK reports none"),
        (lambda: replay("desk", since=NOW, until=NOW), "--until "),
    ],
)
def test_an_option_that_cannot_be_meant(call: Callable[[], None], option: str) -> None:
    """It is named, before anything is opened."""
    with pytest.raises(CommandFailed, match=option) as caught:
        call()
    assert caught.value.code == WRONG
