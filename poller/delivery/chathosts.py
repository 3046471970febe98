"""Chat services by the host of the URLs they give out, and what to write instead. Pure.

They want messages in a form of their own. Some answer 200 to anything else, with the refusal in the
body: as a plain webhook, every event to them would count as delivered and be lost.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class _Service:
    """A service. A host that begins with a dot stands for all below it. `instead`: the key."""

    name: str
    hosts: tuple[str, ...]
    instead: str


_FEISHU: Final = _Service(
    "Feishu or Lark", ("open.feishu.cn", "open.larksuite.com"), "add feishu = true"
)
_SERVICES: Final = (
    _FEISHU,
    _Service(
        "Slack",
        ("hooks.slack.com", "hooks.slack-gov.com", "slack.com"),
        'write url = "slack://TOKEN_A/TOKEN_B/TOKEN_C", the three parts behind /services/',
    ),
    _Service(
        "Discord",
        ("discord.com", "discordapp.com", ".discord.com", ".discordapp.com"),
        'write url = "discord://WEBHOOK_ID/WEBHOOK_TOKEN", the two parts behind /webhooks/',
    ),
    _Service(
        "Telegram",
        ("api.telegram.org",),
        'write url = "tgram://BOT_TOKEN/CHAT_ID", the token as it stands behind /bot',
    ),
    _Service(
        "DingTalk",
        ("oapi.dingtalk.com", "api.dingtalk.com"),
        'write url = "dingtalk://ACCESS_TOKEN", or "dingtalk://SECRET@ACCESS_TOKEN" for a bot '
        "that wants a signature",
    ),
    _Service(
        "WeCom",
        ("qyapi.weixin.qq.com",),
        'write url = "wecombot://KEY", what stands behind key=',
    ),
    _Service(
        "Microsoft Teams",
        (".webhook.office.com", "outlook.office.com", "outlook.office365.com"),
        "make a workflow for the channel, as such connectors are retired, and "
        'write url = "workflows://HOST/WORKFLOW/SIGNATURE" of its URL',
    ),
    _Service(
        "Google Chat",
        ("chat.googleapis.com",),
        'write url = "gchat://SPACE/KEY/TOKEN", the parts behind spaces/, key= and token=',
    ),
    _Service(
        "Webex",
        ("webexapis.com", "api.ciscospark.com"),
        'write url = "wxteams://TOKEN", the part behind /incoming/',
    ),
    _Service(
        "PushPlus",
        ("www.pushplus.plus", "pushplus.plus"),
        'write url = "pushplus://TOKEN", what stands behind token=',
    ),
    _Service(
        "ServerChan",
        ("sctapi.ftqq.com", "sc.ftqq.com"),
        'write url = "schan://SENDKEY", the part in front of .send',
    ),
    _Service(
        "Bark",
        ("api.day.app",),
        'write url = "barks://api.day.app/DEVICE_KEY", the first part of its path',
    ),
    _Service(
        "WxPusher",
        ("wxpusher.zjiecode.com",),
        'write url = "wxpusher://APP_TOKEN/UID", appToken and uid of its messages',
    ),
)
_FLOWS: Final = "/anycross/"
"""Below it Feishu's own hosts have workflows, which take any JSON."""


def check_host(host: str, path: str, *, feishu: bool) -> None:
    """Raise ValueError with what to write when a host takes no events but a chat's messages.

    `host`: in ASCII and small letters. `feishu`: messages to Feishu are what is sent; any host but
    another service's may be a bot's, as some put a proxy of their own in front of it.
    """
    bare = host.removesuffix(".")
    for service in _SERVICES:
        if not any(bare.endswith(h) if h[0] == "." else bare == h for h in service.hosts):
            continue
        if service is _FEISHU and (feishu or path.startswith(_FLOWS)):
            return
        raise ValueError(
            f"{service.name} takes messages of its own form there, not events: {service.instead}"
            + ("" if service is _FEISHU else "; leave feishu out" if feishu else "; no secret")
        )
