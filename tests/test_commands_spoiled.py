"""A symbol whose keys cannot be read is named, and hides none of the others."""

import json
from pathlib import Path

from poller.model import Code
from poller.store.redisstore import RedisStore
from tests import nodes
from tests.feed import publish
from tests.service import Service, poller

GOOD, SPOILED = Code("HK.00700"), Code("HK.00005")


async def test_a_spoiled_symbol_hides_no_other(tmp_path: Path) -> None:
    """`gaps` and `quarantine list` show the rest, name the entry with its cure, and exit with 1."""
    with nodes.node(tmp_path / "server") as server:
        store = RedisStore(server.url, "short-interest")
        for code in (SPOILED, GOOD):
            await publish(store, code, [1, 2])
        await store.close()
        server.ask("HSET", "{short-interest}:vintages:HK.00005", "garbage", "[" * 50_000)
        server.ask("HSET", "{short-interest}:held:HK.00005", "garbage", "x")
        service = Service(tmp_path, 1, f"{SPOILED},{GOOD}", {"POLLER_REDIS__URL": server.url})
        status, out, err = await poller(service, "gaps", "--json")
        assert status == 1
        assert [each["code"] for each in json.loads(out)] == [GOOD]
        assert "HDEL {short-interest}:vintages:HK.00005 garbage" in err
        status, out, err = await poller(service, "quarantine", "list", "--json")
        assert (status, json.loads(out)) == (1, [])
        assert "Traceback" not in err
        assert "HDEL {short-interest}:" in err
