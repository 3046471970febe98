"""Who stands at the other end of each destination: what is configured for it, and what it says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.receiver import SECRET, status

TOKEN: Final = "5f2c-token-of-the-url"  # noqa: S105  of the tests
"""Part of every URL, and as secret as it is."""


@dataclass(frozen=True)
class Partner:
    """The receiver of one destination.

    Attributes:
        url: Where it is; `{port}` stands for its port.
        keys: The further keys of its table in TOML.
        takes: What it answers when it takes a message.
        refusals: What it answers when it does not, and what the operator is told then.
        badly_kept: Secrets that do not fit, in TOML, and what is wrong with them.
    """

    url: str
    takes: bytes
    refusals: Mapping[bytes, str]
    badly_kept: Mapping[str, str]
    keys: str = ""


def _feishu(code: int) -> bytes:
    return status(200, body=json.dumps({"code": code, "msg": f"{TOKEN} {SECRET}"}).encode())


PARTNERS: Final = {
    "webhook": Partner(
        f"http://127.0.0.1:{{port}}/{TOKEN}",
        takes=status(204),
        refusals={
            status(401, body=SECRET.encode()): "401, it does not accept the signature",
            status(404): "404, it knows no such path; is the URL right?",
            status(308, f"location: /{TOKEN}"): "it points to another path",
            status(500, body=TOKEN.encode()): "500",
        },
        badly_kept={"[]": "nothing to sign with; make one", '"hunter2"': "a signing secret is"},
        keys=f'secret = "{SECRET}"',
    ),
    "feishu": Partner(
        f"http://127.0.0.1:{{port}}/{TOKEN}",
        takes=status(200, body=b'{"code":0}'),
        refusals={
            _feishu(19001): "it knows no such bot: copy the URL from the group's settings again",
            _feishu(19021): "it refuses the signature: check the bot's secret",
            _feishu(19022): "it refuses this address: add it to the bot's list",
            _feishu(19024): "it wants a keyword: add 'short'",
            _feishu(11232): "it is asked too often",
            status(200, body=SECRET.encode()): "is the URL a custom bot's?",
            status(500, body=TOKEN.encode()): "Feishu: 500",
        },
        badly_kept={'["hunter2", "hunter3"]': "a bot has one secret"},
        keys=f'feishu = true\nsecret = "{SECRET}"',
    ),
    "slack": Partner(
        f"http://127.0.0.1:{{port}}/{TOKEN}",
        takes=status(200, body=b"ok"),
        refusals={
            status(404, body=b"no_service"): "404 no_service: it knows no such webhook",
            status(200, body=TOKEN.encode()): "its answer is not ok",
        },
        badly_kept={'"hunter2"': "leave it out"},
        keys="slack = true",
    ),
    "discord": Partner(
        f"http://127.0.0.1:{{port}}/{TOKEN}",
        takes=status(204),
        refusals={
            status(404, body=b'{"code":10015,"message":"%b"}' % TOKEN.encode()): "404 10015",
            status(429, body=b'{"retry_after":0.5}'): "429: it is asked too often",
        },
        badly_kept={'"hunter2"': "leave it out"},
        keys="discord = true",
    ),
    "telegram": Partner(
        f"http://127.0.0.1:{{port}}/bot1:{TOKEN}/sendMessage?chat_id=12345678",
        takes=status(200, body=b'{"ok":true}'),
        refusals={
            status(401, body=b'{"ok":false,"error_code":401}'): "401: it refuses the token",
            status(200, body=b'{"ok":false,"description":"%b"}' % TOKEN.encode()): "Bot API's",
        },
        badly_kept={'"hunter2"': "leave it out"},
        keys="telegram = true",
    ),
    "dingtalk": Partner(
        f"http://127.0.0.1:{{port}}/send?access_token={TOKEN}",
        takes=status(200, body=b'{"errcode":0,"errmsg":"ok"}'),
        refusals={
            status(200, body=b'{"errcode":310000}'): "310000: it refuses the keyword",
            status(200, body=SECRET.encode()): "its answer holds no errcode",
        },
        badly_kept={'["hunter2", "hunter3"]': "a bot has one secret"},
        keys=f'dingtalk = true\nsecret = "{SECRET}"',
    ),
    "wecom": Partner(
        f"http://127.0.0.1:{{port}}/send?key={TOKEN}",
        takes=status(200, body=b'{"errcode":0,"errmsg":"ok"}'),
        refusals={
            status(200, body=b'{"errcode":93000}'): "93000: it knows no such bot",
            status(200, body=TOKEN.encode()): "its answer holds no errcode",
        },
        badly_kept={'"hunter2"': "leave it out"},
        keys="wecom = true",
    ),
    "teams": Partner(
        f"http://127.0.0.1:{{port}}/{TOKEN}",
        takes=status(202),
        refusals={
            status(400, body=TOKEN.encode()): "400: it does not understand the message",
            status(200, body=b"delivery failed: returned HTTP error 429"): "429: it is asked",
        },
        badly_kept={'"hunter2"': "leave it out"},
        keys="teams = true",
    ),
    "apprise": Partner(
        f"json://desk:{TOKEN}@127.0.0.1:{{port}}/{TOKEN}",
        takes=status(200),
        refusals={status(403, body=TOKEN.encode()): "JSON: 403", status(302): "JSON: 302"},
        badly_kept={'"hunter2"': "leave it out"},
    ),
    "batch": Partner(
        f"http://127.0.0.1:{{port}}/{TOKEN}",
        takes=status(200, body=b"taken"),
        refusals={status(200, body=SECRET.encode()): "200, it did not say that it was taken"},
        badly_kept={"[]": "give the one secret", '["hunter2", "hunter3"]': "give the one secret"},
        keys=f'batch = true\nsecret = "{SECRET}"',
    ),
}
"""By the destination's name; the last one is that of `tests/batch_destination.py`."""
