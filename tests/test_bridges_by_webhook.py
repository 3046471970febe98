"""ntfy, n8n and Home Assistant, as the page of bridges configures them, get a real event.

The fakes take what the services take, and show what people would see of it: ntfy's templates are
rendered as Go does, n8n's expressions by JavaScript, Home Assistant's templates by Jinja.
"""

import base64
import json
import re
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from aiohttp import web
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from redis import Redis

from poller.store.redisstore import RedisStore
from tests import nodes
from tests.machine import needs
from tests.receiver import SECRET
from tests.service import Service, poller, until
from tests.test_documents import PAGES
from tests.test_examples import publish

NAMES: Final = ("n8n", "home-assistant", "ntfy")
SENTENCE: Final = "+51.5 %, +51480 shares"
LOGIN: Final = "Basic " + base64.b64encode(b"USER:PASSWORD").decode()
EVALUATE: Final = """
const [texts, $json] = JSON.parse(require("fs").readFileSync(0, "utf8"));
const value = (expression) => new Function("$json", `return (${expression})`)($json);
const filled = (text) => text.replace(/{{(.*?)}}/g, (_, each) => value(each));
const whole = (text) => text.match(/^{{([^{}]*)}}$/);
const told = texts.map((text) => (whole(text) ? value(whole(text)[1]) : filled(text)));
console.log(JSON.stringify(told));
"""


class TemplateError(Exception):
    """What ntfy refuses."""


def go(template: str, told: Any) -> str:  # noqa: ANN401  any JSON
    """Render the part of Go's templates that the page uses, as strictly as Go does."""

    def value(path: str, dot: Any) -> Any:  # noqa: ANN401
        for name in path.split(".")[1:]:
            if not isinstance(dot, dict):
                raise TemplateError(f"nil pointer evaluating {path}")
            dot = dot.get(name)
        return dot

    def action(found: re.Match[str], dot: Any) -> str:  # noqa: ANN401
        if (plain := re.fullmatch(r"(\.[\w.]+)", found[1])) is not None:
            shown = value(plain[1], dot)
            assert isinstance(shown, str), "Go shows large numbers with an exponent"
            return shown
        if (call := re.fullmatch(r'printf "([^"]*)"((?: \.\w+)+)', found[1])) is not None:
            return str(call[1] % tuple(value(path, dot) for path in call[2].split()))
        raise TemplateError(found[0])

    def chosen(found: re.Match[str]) -> str:
        dot = value(found[1], told)
        return plain(found[2], dot) if dot else plain(found[3], told)

    def plain(text: str, dot: Any) -> str:  # noqa: ANN401
        return re.sub(r"{{(.*?)}}", lambda found: action(found, dot), text)

    both = r"{{with (\.[\w.]+)}}(.*?){{else}}(.*?){{end}}"
    return plain(re.sub(both, chosen, template), told)


@dataclass
class Services:
    """The three on one port. `shown`: by service, what it made of each request."""

    shown: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in NAMES})
    closed: bool = False

    async def ntfy(self, request: web.Request) -> web.Response:
        """Take a message as a topic does: templates only if asked for, of a body in JSON."""
        if self.closed:
            refusal = {"code": 40301, "http": 403, "error": "forbidden"}
            return web.json_response(refusal, status=403)
        try:
            assert request.query["template"] in {"yes", "1", "true"}
            told = json.loads(await request.text())
            message = {each: go(request.query[each], told) for each in ("title", "message")}
        except (TemplateError, ValueError) as problem:
            refusal = {"code": 40043, "http": 400, "error": f"invalid request: {problem}"}
            return web.json_response(refusal, status=400)
        self.shown["ntfy"].append(message)
        whole = {"id": "sPs71M8A2T", "time": 1, "expires": 2, "event": "message", **message}
        return web.json_response(whole | {"topic": request.match_info["topic"]})

    async def n8n(self, request: web.Request) -> web.Response:
        """Start a workflow with what its first node gives."""
        if request.headers.get("Authorization") != LOGIN:
            return web.Response(status=401, text="Authorization data is wrong!")
        given = {"headers": dict(request.headers), "params": {}, "query": {}}
        self.shown["n8n"].append(given | {"body": await request.json()})
        return web.json_response({"message": "Workflow was started"})

    async def home_assistant(self, request: web.Request) -> web.Response:
        """Trigger an automation; the answer is the same for an id that nobody has."""
        assert "json" in request.headers["Content-Type"]
        if request.match_info["id"] == automation()["triggers"][0]["webhook_id"]:
            self.shown["home-assistant"].append({"json": await request.json()})
        return web.Response()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Listen on a loopback port, which is yielded."""
        app = web.Application()
        app.router.add_post("/api/webhook/{id}", self.home_assistant)
        app.router.add_post(f"/webhook/{workflow()['nodes'][0]['parameters']['path']}", self.n8n)
        app.router.add_post("/{topic}", self.ntfy)
        runner = web.AppRunner(app)
        await runner.setup()
        await (site := web.TCPSite(runner, "127.0.0.1", 0)).start()
        assert site.name
        try:
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()


def workflow() -> Any:  # noqa: ANN401  any JSON
    """Return the workflow of n8n."""
    return json.loads(Path("config/examples/n8n.json").read_text(encoding="utf-8"))


def automation() -> Any:  # noqa: ANN401  any YAML
    """Return the automation of Home Assistant."""
    (found,) = yaml.safe_load(Path("config/examples/home-assistant.yaml").read_text("utf-8"))
    return found


def configuration(port: int, folder: Path) -> Path:
    """Write what the page shows, with the services at a port of this machine."""
    shown = re.findall(r"```toml\n(.*?)```", PAGES["bridges"], re.DOTALL)
    text = re.sub(
        r"https?://((?:[^@/\"]*@)?)[^/\"]+", rf"http://\g<1>127.0.0.1:{port}", "".join(shown)
    )
    for name in NAMES:
        secret = folder / f"{name}.secret"
        secret.write_text(SECRET, encoding="ascii")
        secret.chmod(0o600)
    file = folder / "poller.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[tuple[Services, Service, RedisStore]]:
    """The three, a server, and the service that is configured for them."""
    made = Services()
    with nodes.node(tmp_path / "redis") as redis:
        store = RedisStore(redis.url, "short-interest")
        async with made.running() as port:
            file = configuration(port, tmp_path)
            settings = {"POLLER_CONFIG": str(file), "POLLER_REDIS__URL": redis.url}
            service = Service(tmp_path, 1, "HK.00700", settings, role="deliver")
            yield made, service, store
        await store.close()


@needs("node")
async def test_an_event_reaches_the_three(
    services: tuple[Services, Service, RedisStore],
) -> None:
    """A move of more than ten percent is delivered once to each, and each makes words of it."""
    made, service, store = services
    await service.start()
    try:
        with Redis.from_url(service.settings["POLLER_REDIS__URL"]) as admin:
            keys = [f"{{short-interest}}:webhook:{name}:state" for name in NAMES]
            await until(lambda: all(admin.hexists(key, "position:events") for key in keys))
        for figure, known in ((100_000, None), (100_001, None), (151_481, "TENCENT")):
            await publish(store, figure, known)
        await until(lambda: len(made.shown["n8n"]) == 2 and all(made.shown.values()))
    finally:
        assert await service.stop() == 0
    assert made.shown["ntfy"] == [{"title": "HK.00700 2026-04-03", "message": SENTENCE}]
    assert [in_home_assistant(each) for each in made.shown["home-assistant"]] == [
        ("TENCENT, 2026-04-03", "+51.5 %, +51,480 shares")
    ]
    assert [in_n8n(each) for each in made.shown["n8n"]] == [
        ["HK.00700:2026-04-02:0", "HK.00700", "2026-04-02", 0.001, "HK.00700, 2026-04-02: 0.0 %"],
        ["HK.00700:2026-04-03:0", "HK.00700", "2026-04-03", 51.48, "TENCENT, 2026-04-03: 51.5 %"],
    ]


def in_home_assistant(trigger: Mapping[str, Any]) -> tuple[str, str]:
    """Return title and text of a notification."""
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    (action,) = automation()["actions"]
    texts = action["data"]
    title, text = (
        environment.from_string(texts[each]).render(trigger=trigger).strip()
        for each in ("title", "message")
    )
    return title, text


def in_n8n(item: Mapping[str, Any]) -> list[Any]:
    """Return by what an event counts as known, and the fields that the last node makes of it."""
    _, once, words = (each["parameters"] for each in workflow()["nodes"])
    texts = [once["dedupeValue"], *(each["value"] for each in words["assignments"]["assignments"])]
    assert all(text.startswith("=") for text in texts)
    given = json.dumps([[text[1:] for text in texts], item])
    done = subprocess.run(
        ["node", "-e", EVALUATE], input=given, capture_output=True, text=True, check=True
    )
    found: list[Any] = json.loads(done.stdout)
    return [round(each, 3) if isinstance(each, float) else each for each in found]


def test_the_workflow_of_n8n_is_whole() -> None:
    """Each connection leads to a node, in a chain from the first to the last."""
    found = workflow()
    names = [node["name"] for node in found["nodes"]]
    for before, after in pairwise(names):
        (((connection,),),) = found["connections"][before].values()
        assert connection == {"node": after, "type": "main", "index": 0}
    assert found["connections"].keys() == {*names[:-1]}


@pytest.mark.parametrize("name", NAMES)
async def test_a_test_event(services: tuple[Services, Service, RedisStore], name: str) -> None:
    """`webhook test` is taken, and shown as such; ntfy's refusal is told in its words."""
    made, service, _ = services
    assert await poller(service, "webhook", "test", name) == (0, f"{name} took it: 200\n", "")
    (shown,) = made.shown[name]
    if name == "ntfy":
        assert shown == {"title": "HK.00000 1970-01-01", "message": "short_interest.test"}
        made.closed = True
        code, _, err = await poller(service, "webhook", "test", name)
        assert code == 1
        assert "403" in err
        assert "forbidden" in err
    if name == "home-assistant":
        assert in_home_assistant(shown) == ("HK.00000, 1970-01-01", "short_interest.test")
