"""The Dockerfile and compose.yaml, as far as they can be judged without a container engine.

`make container` builds and runs them.
"""

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis.asyncio import Redis

from poller.cli.main import cli
from poller.settings.config import Config, load
from poller.settings.variables import PREFIX
from poller.store.location import locate
from poller.store.redisstore import RedisStore
from tests.machine import needs
from tests.receiver import SECRET
from tests.servers import serving

DOCKERFILE = Path("Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(Path("compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
POLLER = SERVICES["poller"]
PAGE = Path("docs/container.md").read_text(encoding="utf-8")
SECRETS = "/run/secrets"


def instructions() -> list[tuple[str, str]]:
    """Return each instruction of the Dockerfile, its lines joined."""
    lines = re.sub(r"(?m)^ *#.*\n", "", DOCKERFILE).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def last(word: str) -> str:
    """Return the last such instruction, which is the image's own."""
    return [rest for each, rest in instructions() if each == word][-1]


def blocks(kind: str) -> list[str]:
    """Return the blocks of a kind in the page of the documentation."""
    return re.findall(rf"(?ms)^```{kind}\n(.*?)^```$", PAGE)


def test_the_base_is_named_without_a_registry() -> None:
    """Whoever builds chooses where images come from; every stage has one base, so one Python."""
    assert dict(instructions())["ARG"] == 'EXTRAS=""'
    named = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert named == ["${BASE}", "base", "base"]
    base = re.findall(r"^ARG BASE=(\S+)", DOCKERFILE, re.MULTILINE)
    for image in (*base, SERVICES["redis"]["image"]):
        assert re.fullmatch(r"[a-z]+:[a-z0-9-]+", image), image


def test_what_is_copied_exists_and_is_in_the_context() -> None:
    """A path that .dockerignore leaves out would only fail where it is built."""
    lines = Path(".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = [line[1:] for line in lines if line.startswith("!")]
    copied = [rest.split() for word, rest in instructions() if word == "COPY"]
    sources = [path for words in copied if not words[0].startswith("--") for path in words[:-1]]
    assert "poller" in sources
    for path in sources:
        assert Path(path).exists(), path
        assert any(fnmatch(path, each) or path.startswith(f"{each}/") for each in kept), path
    assert "*" in lines


def test_packages_are_checked_against_the_pins() -> None:
    """Whatever is fetched has a hash; only what was fetched then is installed."""
    ran = " && ".join(rest for word, rest in instructions() if word == "RUN")
    fetched = [command for command in ran.split("&&") if re.search(r"/pip\b", command)]
    assert len(fetched) == 4
    for command in fetched:
        assert "--require-hashes" in command or "--no-index" in command or "--no-deps" in command


def test_nobody_is_root_and_the_health_check_is_a_command() -> None:
    """The user is a number, so that an orchestrator sees that it is not root."""
    assert re.fullmatch(r"[1-9][0-9]{4}:[1-9][0-9]{4}", last("USER"))
    checked = last("HEALTHCHECK").partition(" CMD ")[2]
    program, *words = json.loads(checked)
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert program in project["scripts"]
    assert json.loads(last("ENTRYPOINT")) == [program]
    for each in (words, json.loads(last("CMD"))):
        assert each[0] in list(cli), each


def test_the_image_needs_no_configuration() -> None:
    """Its variables are settings: state and the SDK's home are where its user may write."""
    variables = dict(part.split("=", 1) for part in shlex.split(last("ENV")))
    settings = {name: text for name, text in variables.items() if name.startswith(PREFIX)}
    assert str(load(None, settings).state_dir) == variables["HOME"] == last("VOLUME")


def composed(folder: Path) -> Config:
    """Return the configuration of compose.yaml, with the files that the page says to write."""
    (folder / "etc").mkdir()
    files = {"redis-url": "redis://:word@redis:6379/0", "web-token": "t" * 40, "desk": SECRET}
    for name, text in files.items():
        (folder / name).write_text(text)
    (toml,) = blocks("toml")
    (folder / "etc/poller.toml").write_text(toml.replace(SECRETS, str(folder)))
    environment = {
        name: text.replace(SECRETS, str(folder)).replace("/etc/poller", str(folder / "etc"))
        for name, text in POLLER["environment"].items()
    }
    return load(None, environment)


def test_the_variables_are_settings(tmp_path: Path) -> None:
    """The loader takes each of them, and the page's own configuration beside them."""
    config = composed(tmp_path)
    assert config.redis.url is not None
    assert locate(config.redis.url.get_secret_value()).nodes[0][0] in SERVICES
    assert config.web.token is not None
    assert (config.web.host, config.web.port) == ("0.0.0.0", 8080)  # noqa: S104  of a container
    assert config.opend[0].host in str(POLLER["extra_hosts"])
    assert [webhook.name for webhook in config.webhooks] == ["desk"]


def test_secrets_are_files_that_stay_out_of_the_repository() -> None:
    """Each that a service uses is declared, is a file, and git knows none of them."""
    used = {name for service in SERVICES.values() for name in service.get("secrets", [])}
    assert used == set(COMPOSE["secrets"])
    assert all(each == {"file": f"secrets/{name}"} for name, each in COMPOSE["secrets"].items())
    named = re.findall(rf"{SECRETS}/([\w-]+)", json.dumps(SERVICES))
    assert set(named) == used
    assert {"/secrets/", "/etc/"} <= set(Path(".gitignore").read_text(encoding="utf-8").split())
    assert all(f"secrets/{name}" in PAGE for name in used)


@pytest.mark.parametrize("name", SERVICES)
def test_services_start_again_and_are_reached_from_this_machine_only(name: str) -> None:
    """No port is open to the network, and every volume is declared or is read-only."""
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    for volume in service["volumes"]:
        source, _, rest = volume.partition(":")
        assert source in COMPOSE["volumes"] or rest.endswith(":ro"), volume


@pytest.mark.parametrize("name", ["poller", "redis"])
def test_services_can_do_little(name: str) -> None:
    """The root is read-only, and no process gains a right."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "root" not in service.get("user", "")


def test_the_service_has_the_time_it_needs_to_end() -> None:
    """It ends within 10 s of SIGTERM; docker's own patience is 10 s, and no more."""
    assert int(POLLER["stop_grace_period"].removesuffix("s")) > 10
    assert POLLER["build"] == "."


@needs("redis-server")
async def test_the_server_is_one_that_the_poller_takes(tmp_path: Path) -> None:
    """With its flags it evicts nothing, writes every change to disk, and asks for the password."""
    program, conf, *flags = shlex.split(SERVICES["redis"]["command"])
    assert (program, conf) == ("redis-server", f"{SECRETS}/redis-conf")
    (tmp_path / "conf").write_text("requirepass word\n")
    socket = tmp_path / "redis.sock"
    command = [program, str(tmp_path / "conf"), *flags]
    async with serving(command, tmp_path, url := f"unix://:word@{socket}"):
        store = RedisStore(url, "short-interest")
        assert (await store.inspect()).startswith("Redis")
        await store.close()
        async with Redis.from_url(url, decode_responses=True) as client:
            found = await client.config_get("append*")
        assert (found["appendonly"], found["appendfsync"]) == ("yes", "everysec")


def test_the_override_for_the_hosts_network_is_yaml() -> None:
    """What the page says to write where OpenD only listens on loopback names known services."""
    (text,) = blocks("yaml")
    override = yaml.compose(text)
    assert isinstance(override, yaml.MappingNode)
    values = yaml.safe_load(re.sub(r"!reset ", "", text))
    assert values["services"].keys() <= SERVICES.keys()
    assert values["services"]["poller"]["network_mode"] == "host"
