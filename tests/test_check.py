"""`poller check`: a row for everything, whatever became of the rest."""

import re
from pathlib import Path

import pytest
from redis.asyncio import Redis

from poller.commands.check import check
from poller.commands.everyday import Failure
from poller.delivery.outbox import OutboxKeys
from poller.errors import ConfigError
from poller.gateway.opend import Sdk
from poller.settings.config import load
from poller.simulator import World
from poller.storage.embedded import Embedded
from tests.nodes import free_port
from tests.receiver import SECRET
from tests.service import simulator


async def told(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return the rows of a check that fails: what was tried → its state and what was found."""
    file = folder / "poller.toml"
    file.write_text(f'state_dir = "{folder}"\n{text}', encoding="utf-8")
    with pytest.raises(Failure):
        await check(load(file, {}))
    lines = capsys.readouterr().out.splitlines()[1:]
    rows = [re.split(r"  +", line.rstrip(), maxsplit=1) for line in lines]
    assert len(rows) == len({name for name, _ in rows})
    return {name: re.sub(r"  +", " | ", rest) for name, rest in rows}


async def test_a_refused_redis_keeps_nothing_from_being_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """OpenD and the webhooks have rows of their own; a name nobody knows is said as such."""
    async with simulator(World()) as opend:
        rows = await told(
            tmp_path,
            f'redis.url = "redis://127.0.0.1:{free_port()}"\nbudget.requests = 60\n'
            f"[[opend]]\nport = {opend.port}\n"
            f'[[webhooks]]\nname = "desk"\nurl = "https://name.invalid/"\nsecret = "{SECRET}"\n',
            capsys,
        )
    assert rows["configuration"] == "ok | 2 codes in it"
    assert "too high | 60 requests in 30 s: OpenD allows 30 in 30 s" in rows["budget"]
    assert "failed | Redis does not answer: nobody listens" in rows["redis"]
    assert "ok | logged in" in rows[f"OpenD 127.0.0.1:{opend.port}"]
    assert rows["webhook desk"] == "failed | its name does not resolve"


async def test_an_unusable_key_and_a_disabled_endpoint_are_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rest is tried; an endpoint has one row, with the command that enables it."""
    async with Embedded(tmp_path).running() as url, Redis.from_url(url) as redis:
        state = OutboxKeys("short-interest", "desk").state
        await redis.hset(state, "disabled", "it answered 410")
        rows = await told(
            tmp_path,
            f'[[opend]]\nrsa_private_key_file = "{tmp_path}/none"\n'
            f'[[webhooks]]\nname = "desk"\nurl = "http://127.0.0.1:1/"\nsecret = "{SECRET}"\n',
            capsys,
        )
    assert rows["redis (embedded)"].startswith("ok")
    assert rows["OpenD"].startswith("failed | opend.rsa_private_key_file: ")
    cure = "mended? poller webhook enable desk"
    assert rows["webhook desk"] == f"failed | disabled: it answered 410; {cure}"


async def test_a_state_directory_that_takes_no_log(tmp_path: Path) -> None:
    """Beside a Redis of one's own, too: the key and the cure, no defect."""
    (tmp_path / "file").touch()
    sdk = Sdk(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"state_dir: the SDK's log cannot live in .*writable"):
        await sdk.load()
    sdk.close()
