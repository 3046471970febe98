"""Where paths lead, and what a command that only reads does where nothing is."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl

import pytest

from poller.errors import ConfigError
from poller.settings.config import Config, load
from poller.store.embedded import Embedded
from poller.store.redisstore import RedisStore
from poller.telemetry.log import configure
from tests.feed import publish
from tests.receiver import SECRET
from tests.service import Service, poller

TOML = f"""\
state_dir = "data"
[[opend]]
rsa_private_key_file = "key.pem"
[redis]
url_file = "url"
[watchlist]
files = ["hk.txt", "us.txt"]
[web]
token_file = "secrets/token"
[[webhooks]]
name = "desk"
url = "https://example.org/hook"
secret_file = "a, b"
[[webhooks]]
name = "other"
url_file = "hook"
secret = "{SECRET}"
"""
FILES = {
    "hk.txt": "HK.00700\n",
    "us.txt": "US.AAPL\n",
    "url": "redis://127.0.0.1",
    "secrets/token": "a-token-of-16-characters",
    "a": SECRET,
    "b": SECRET,
    "hook": "https://example.org/other",
    "key.pem": "",
}


@pytest.fixture(autouse=True)
def stderr_of_its_own() -> Iterator[None]:
    """Let a test point the log to the stderr that is captured for it alone."""
    configure()
    yield
    configure()


class Folders(NamedTuple):
    """Where the configuration is, and where the command is started."""

    beside: Path
    working: Path

    @property
    def file(self) -> Path:
        """Return the configuration."""
        return self.beside / "poller.toml"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """Both, apart from each other, with odd characters that separate paths elsewhere."""
    made = Folders(tmp_path / "etc, of mine", tmp_path / "work")
    for folder in made:
        folder.mkdir()
    monkeypatch.chdir(made.working)
    return made


def fill(folder: Path) -> None:
    """Write every file the configuration names."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def paths_in(config: Config) -> set[Path]:
    """Return the paths that are kept as such."""
    key = config.opend[0].rsa_private_key_file
    assert key is not None
    return {config.state_dir, key, *config.watchlist.files}


def with_data(state_dir: Path) -> Path:
    """Make what an embedded server leaves."""
    (state_dir / "redis/appendonlydir").mkdir(parents=True)
    return state_dir


def test_relative_paths_lead_beside_the_file(
    folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every kind of path, whatever directory a command is started in; and not a word of it."""
    folders.file.write_text(TOML, encoding="utf-8")
    fill(folders.beside)
    configure()
    config = load(folders.file, {})
    assert paths_in(config) == {
        folders.beside / name for name in ("data", "key.pem", "hk.txt", "us.txt")
    }
    assert config.watchlist.codes == ()
    assert len(config.webhooks[0].secret) == 2
    assert config.web.token is not None
    assert capsys.readouterr().err == ""
    # the file's own name may be relative, as on the command line
    assert paths_in(load(Path("../etc, of mine/poller.toml"), {})) == {
        folders.working / "../etc, of mine" / path.name for path in paths_in(config)
    }


def test_the_old_place_counts_where_only_it_exists(
    folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files in the working directory still work, each with a line that names both places."""
    folders.file.write_text(TOML, encoding="utf-8")
    fill(folders.working)
    with_data(folders.working / "data")
    configure()  # to the stderr of this test
    config = load(folders.file, {})
    assert paths_in(config) == {
        folders.working / name for name in ("data", "key.pem", "hk.txt", "us.txt")
    }
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 9  # 8 files and the state
    for line in said:
        assert str(folders.working) in line
        assert str(folders.beside) in line
    fill(folders.beside)
    with_data(folders.beside / "data")
    assert paths_in(load(folders.file, {})).isdisjoint(paths_in(config))
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{folders.working / 'data'} holds data, too" in line


def test_a_state_is_never_begun_anew_where_the_old_one_lies(folders: Folders) -> None:
    """Also without the key: what has data wins, and an empty directory is none."""
    folders.file.touch()
    assert load(folders.file, {}).state_dir == folders.beside / "state"
    old = with_data(folders.working / "state")
    (folders.beside / "state").mkdir()
    assert load(folders.file, {}).state_dir == old
    with_data(folders.beside / "state")
    assert load(folders.file, {}).state_dir == folders.beside / "state"


def test_other_paths_stay_where_they_were(
    folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    """Variables and defaults without a file: the working directory; absolute paths: themselves."""
    assert load(None, {}).state_dir == Path("state")
    assert load(Path("/dev/null"), {}).state_dir == Path("state")
    folders.file.write_text(TOML, encoding="utf-8")
    fill(folders.beside)
    (folders.working / "mine.txt").write_text("US.MSFT\n", encoding="utf-8")
    with_data(folders.working / "data")
    configure()
    variables = {"POLLER_STATE_DIR": "own", "POLLER_WATCHLIST__FILES": "mine.txt"}
    config = load(folders.file, variables)
    assert (config.state_dir, config.watchlist.files) == (Path("own"), (Path("mine.txt"),))
    assert capsys.readouterr().err == ""
    folders.file.write_text(f'state_dir = "{folders.working}"', encoding="utf-8")
    assert load(folders.file, {}).state_dir == folders.working


def test_the_files_in_a_url_are_paths_too(folders: Folders) -> None:
    """An authority and a certificate of TLS lead beside the file; the rest of it stays as it is."""
    url = "rediss://u:p%2F@h:1/0?ssl_ca_certs=my+own/ca.pem&db=1&ssl_keyfile=/k&ssl_certfile=c"
    folders.file.write_text(f'redis.url = "{url}"', encoding="utf-8")
    (folders.working / "c").touch()
    found = load(folders.file, {}).redis.url
    assert found is not None
    before, _, options = found.get_secret_value().partition("?")
    assert before == "rediss://u:p%2F@h:1/0"
    assert dict(parse_qsl(options)) == {
        "ssl_ca_certs": str(folders.beside / "my own/ca.pem"),
        "db": "1",
        "ssl_keyfile": "/k",
        "ssl_certfile": str(folders.working / "c"),
    }
    other = load(folders.file, {"POLLER_REDIS__URL": "rediss://h?ssl_ca_certs=ca"}).redis.url
    assert other is not None
    assert other.get_secret_value() == "rediss://h?ssl_ca_certs=ca"


def test_a_path_that_none_can_be(folders: Folders) -> None:
    """NUL is refused with its key, wherever a path is written."""
    folders.file.write_text(
        'state_dir = "a\\u0000"\nwatchlist.files = ["a\\u0000"]\n'
        '[[opend]]\nrsa_private_key_file = "a\\u0000"\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(folders.file, {})
    keys = {line.split(": ")[1] for line in caught.value.problems}
    assert keys == {"state_dir", "watchlist.files.0", "opend.0.rsa_private_key_file"}


READERS = [
    ["tail", "--from", "0", "--count", "1"],
    ["history", "HK.00700"],
    ["release", "HK"],
    ["export", "--format", "csv"],
    ["explain", "HK.00700"],
    ["watch", "list"],
    ["gaps", "HK.00700"],
    ["quarantine", "list"],
    ["webhook", "list"],
    ["webhook", "dead", "desk"],
]
MISSING = """\
[[opend]]
rsa_private_key_file = "missing.pem"
[watchlist]
files = ["missing.txt"]
[web]
host = "0.0.0.0"
token_file = "missing-token"
[[webhooks]]
name = "desk"
url_file = "missing-url"
secret_file = "missing-secret"
[[webhooks]]
name = "other"
url = "https://example.org/hook"
secret_file = "missing-secret"
"""


def reader(folders: Folders) -> Service:
    """Return what starts commands with the configuration and no state of their own."""
    settings = {"POLLER_CONFIG": str(folders.file)}
    made = Service(folders.working, 1, "HK.00700", settings)
    made.unset = ("POLLER_STATE_DIR", "POLLER_OPEND__PORT")
    return made


def test_who_only_reads_judges_no_secret(folders: Folders) -> None:
    """A token too short, an invalid URL and an invalid secret are reported to their users only."""
    folders.file.write_text(
        '[web]\ntoken = "short"\n[[webhooks]]\nname = "desk"\nurl = "x"\nsecret = "y"\n'
    )
    assert load(folders.file, {}, reading=True).webhooks[0].name == "desk"
    with pytest.raises(ConfigError) as caught:
        load(folders.file, {})
    assert len(caught.value.problems) == 3


async def test_who_only_reads_needs_no_secret(folders: Folders) -> None:
    """A missing secret, key or list refuses `run` and `check`, and no command that reads."""
    folders.file.write_text(MISSING, encoding="utf-8")
    async with Embedded(folders.beside / "state").running() as url:
        store = RedisStore(url, "short-interest")
        await publish(store, "HK.00700", [1])
        await store.close()
        told = await asyncio.gather(*(poller(reader(folders), *each) for each in READERS))
        for arguments, (code, _, err) in zip(READERS, told, strict=True):
            assert (arguments, code, err) == (arguments, 0, err)
    # nobody runs any more: the command has a server for itself
    _, out, _ = await poller(reader(folders), "webhook", "list")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        ["desk", "not"],
        ["other", "not"],
    ]
    code, _, err = await poller(reader(folders), "check")
    assert code == 2
    for name in ("missing-token", "missing-url", "missing-secret", "missing.txt"):
        assert name in err


@pytest.mark.parametrize("arguments", [*READERS, ["webhook", "enable", "desk"]])
async def test_no_server_is_begun_where_nothing_is(folders: Folders, arguments: list[str]) -> None:
    """The place that was looked at is named, with exit code 1, and nothing is left there."""
    folders.file.write_text(
        f'[[webhooks]]\nname = "desk"\nurl = "https://example.org"\nsecret = "{SECRET}"\n',
        encoding="utf-8",
    )
    code, out, err = await poller(reader(folders), *arguments)
    assert (code, out) == (1, "")
    assert f"no embedded server runs in {folders.beside / 'state'}" in err
    assert "POLLER_STATE_DIR" in err
    assert not (folders.beside / "state").exists()
    assert not (folders.working / "state").exists()


async def test_a_server_that_holds_nothing_is_no_place_to_read(folders: Folders) -> None:
    """What a check has left, or anybody: its emptiness would say that nothing is published."""
    folders.file.write_text("", encoding="utf-8")
    async with Embedded(folders.beside / "state").running():
        pass
    code, out, err = await poller(reader(folders), "tail", "--no-follow")
    assert (code, out) == (1, "")
    assert f"no embedded server runs in {folders.beside / 'state'}" in err


@pytest.mark.parametrize("role", ["poll", "deliver", "web"])
async def test_the_first_line_names_the_configuration(tmp_path: Path, role: str) -> None:
    """Or that there is none, as in another directory than meant; then the state's place, too."""
    file = tmp_path / "poller.toml"
    file.touch()
    service = Service(tmp_path, 1, "HK.00700", {"POLLER_CONFIG": str(file)}, role=role)
    await service.start()
    await service.said("configuration")
    assert service.log()[0]["file"] == str(file)
    assert service.log()[0]["state_dir"] == str(tmp_path)
    await service.stop()
    (tmp_path / "log").unlink()
    service.directory, service.unset = tmp_path, ("POLLER_CONFIG",)
    await service.start()
    await service.said("configuration")
    assert service.log()[0]["file"].startswith("none, ")
    await service.stop()


async def test_a_server_that_has_just_begun_is_joined(folders: Folders) -> None:
    """Its lock shows it, though it has not written yet; one that has ended shows nothing."""
    state = folders.working / "state"
    async with Embedded(state).running():
        shutil.rmtree(state / "redis/appendonlydir")
        assert Embedded(state).exists()
    assert not Embedded(folders.working / "other").exists()


@pytest.mark.parametrize("key", ["state_dir", "opend.rsa_private_key_file", "watchlist.files"])
def test_an_empty_path_is_refused(tmp_path: Path, key: str) -> None:
    """It would be the directory itself, which an embedded server closes to everybody else."""
    file = tmp_path / "poller.toml"
    written = "[[opend]]\nrsa_private_key_file = ''" if key.startswith("opend") else f"{key} = ''"
    file.write_text(written.replace("files = ''", "files = ['']"), encoding="utf-8")
    variable = "POLLER_" + key.replace(".", "__").upper()
    with pytest.raises(ConfigError, match=r"it is empty: write a path"):
        load(file, {})
    if key != "watchlist.files":  # an empty list of files is no file
        with pytest.raises(ConfigError, match=f"{variable}: it is empty"):
            load(None, {variable: ""})
