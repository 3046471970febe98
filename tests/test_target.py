"""Which URLs a webhook may have: whole, sent as they are, and no chat service's."""

from pathlib import Path

import pytest

from poller.delivery.target import as_sent, basic_auth, check_url, host_of, with_query
from poller.errors import ConfigError
from poller.settings.config import load
from tests.receiver import SECRET

UNDERSTOOD = [
    "https://hooks.slack.com/services/T0/B0/x5X",
    "HTTPS://HOOKS.Slack.COM/services/T0/B0/x5X",
    "https://hooks.slack.com:443/services/T0/B0/x5X",
    "https://hooks.slack.com./services/T0/B0/x5X",
    "https://example.org:x5X@hooks.slack.com/services/T0/B0/x",
    "https://ｈooks.slack.com/services/T0/B0/x5X",
    "https://hooks。slack。com/services/T0/B0/x5X",
]
"""One host, however it is written."""

CHATS = {
    "https://example.org%2F@hooks.slack.com/x5X": "https://hooks.slack.com/services/T…/B…/…",
    "https://hooks.slack.com/x5X": "https://hooks.slack.com/services/T…/B…/…",
    "https://outlook.office365.com/webhook/x5X": "make a workflow for the channel",
    "https://chat.googleapis.com/v1/spaces/x5X/messages?key=a&token=b": "gchat://",
    "https://webexapis.com/v1/webhooks/incoming/x5X": "wxteams://TOKEN",
    "https://api.ciscospark.com/v1/webhooks/incoming/x5X": "wxteams://TOKEN",
    "https://pushplus.plus/send?token=x5X": "pushplus://TOKEN",
    "https://www.pushplus.plus/send?token=x5X": "pushplus://TOKEN",
    "https://sctapi.ftqq.com/x5X.send": "schan://SENDKEY",
    "https://sc.ftqq.com/x5X.send": "schan://SENDKEY",
    "https://api.day.app/x5X/": "barks://api.day.app/DEVICE_KEY",
    "https://wxpusher.zjiecode.com/api/send/message/x5X": "wxpusher://APP_TOKEN/UID",
}


def problem(tmp_path: Path, url: str, further: str = f'secret = "{SECRET}"') -> str:
    """Return what a configuration with this URL is refused for; nothing when it is accepted."""
    file = tmp_path / "poller.toml"
    written = f"[[webhooks]]\nname = 'desk'\nurl = '{url}'\n{further}\n"
    file.write_text(written, encoding="utf-8")
    try:
        load(file, {})
    except ConfigError as refused:
        return str(refused)
    return ""


@pytest.mark.parametrize(("url", "instead"), CHATS.items())
def test_a_chat_services_url_is_refused_with_the_line_to_write(
    tmp_path: Path, url: str, instead: str
) -> None:
    """It would take the events and show nobody any: its host alone tells, however it is written."""
    told = problem(tmp_path, url, "")
    assert "webhooks.0.url: " in told
    assert instead in told
    assert "x5X" not in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("url", UNDERSTOOD)
def test_a_chat_services_url_is_understood(tmp_path: Path, url: str) -> None:
    """By its host, so that it needs no secret, and has no use for one."""
    assert problem(tmp_path, url, "") == ""
    told = problem(tmp_path, url)
    assert "webhooks.0.secret: leave it out" in told
    assert "x5X" not in told


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/hooks.slack.com/services/x",
        "https://hooks.slack.com.example.org/x",
        "https://notdiscord.com/api/webhooks/1/2",
        "https://example.org/?to=https://open.feishu.cn/open-apis/bot/v2/hook/x",
        "https://hooks.slack.com@example.org/x",
        "https://open.feishu.cn/anycross/trigger/callback/x",
        "https://www.feishu.cn/flow/api/trigger-webhook/x",
        "https://prod-1.westeurope.logic.azure.com:443/workflows/x/triggers/manual/paths/invoke?v=1",
        "https://a.b.environment.api.powerplatform.com/powerautomate/automations/direct/x?sig=y",
        "https://hooks.zapier.com/hooks/catch/1/x/",
    ],
)
def test_what_takes_any_json_is_accepted(tmp_path: Path, url: str) -> None:
    """Also a workflow at a service that has a chat as well, and a host that is only named alike."""
    assert problem(tmp_path, url) == ""


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://open.feishu.cn/open-apis/bot/v2/hook/x", ""),
        ("https://open.larksuite.com/open-apis/bot/v2/hook/x", ""),
        ("https://proxy.example.org/bot/x", ""),
        ("https://hooks.slack.com/services/x5X", "leave feishu out"),
    ],
)
def test_a_bot_of_feishu_may_have_any_host_but_another_services(
    tmp_path: Path, url: str, told: str
) -> None:
    """Some put a proxy of their own in front of it."""
    refused = problem(tmp_path, url, "feishu = true")
    assert told in refused
    assert bool(refused) is bool(told)


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("https://example.org/a b", "%20"),
        ("https://example.org/a\tb", "%20"),
        (" https://example.org/", "leave it out"),
        ("https://example.org/é", "%C3%A9"),
        ("https://example.org/?q=中", "percent-encode"),
        ("https://example.org/\u2028", "percent-encode"),
        ("https://example.org/x#part", "%23"),
        ("https://example.org/x?", "leave it out"),
        ("https://h%2eorg/", "letters, digits"),
        ("https://a..org/", "letters, digits"),
        (f"https://{'a' * 64}.org/", "63"),
        (f"https://{'a.' * 130}org/", "letters, digits"),
        ("https://a*b.org/", "letters, digits"),
        ("https://2130706433/", "four numbers"),
        ("https://0x7f000001/", "four numbers"),
        ("https://127.1/", "four numbers"),
        ("https://0177.0.0.1/", "four numbers"),
        ("https://1.1.1.1./", "four numbers"),
        ("https://example.org:99999/", "https://"),
        ("https://example.org\\@a/", "https://"),
        ("https://us%3Aer:x5X@example.org/", "colon"),
        ("https://u:%E4%B8%AD@example.org/", "Latin-1"),
        ("slack://[x5X/b/c", "%5B"),
        ("mailto://u:x5X]@example.org", "%5D"),
    ],
)
def test_what_cannot_be_sent_is_refused(tmp_path: Path, url: str, cure: str) -> None:
    """With the key and what to write instead; the URL itself is not shown."""
    told = problem(tmp_path, url)
    assert "webhooks.0.url: " in told
    assert cure in told
    assert "x5X" not in told


@pytest.mark.parametrize("url", ["ftp://example.org/", "//example.org/", "example.org", "https:/x"])
def test_what_is_no_url_of_the_web_has_no_host(url: str) -> None:
    """It is refused as not written in full, without showing it."""
    with pytest.raises(ValueError, match="in full") as caught:
        host_of(url)
    assert "example" not in str(caught.value)


def test_a_chat_url_with_a_control_character_is_refused() -> None:
    """An environment variable can hold one, where TOML cannot."""
    with pytest.raises(ConfigError) as caught:
        load(None, {"POLLER_WEBHOOKS": '[{"name": "desk", "url": "slack://x5X/\\u001b/c"}]'})
    assert "control character" in str(caught.value)
    assert "x5X" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://example.org", "https://example.org/"),
        ("https://EXAMPLE.org:8443/A%2f?b=%7E", "https://example.org:8443/A%2f?b=%7E"),
        ("https://bücher.example/%C3%A9", "https://xn--bcher-kva.example/%C3%A9"),
        ("https://user:pw@example.org/x", "https://example.org/x"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("https://example.org./x", "https://example.org./x"),
    ],
)
def test_how_a_url_is_sent(url: str, sent: str) -> None:
    """The host as it is looked up, the rest as it stands, without user and password."""
    check_url(url, allow_http=False, allow_private=False)
    assert str(as_sent(url)) == sent
    assert as_sent(url).raw_host == host_of(url)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://example.org", "https://example.org/?sign=a%2Bb"),
        ("https://example.org/x?t=%7E", "https://example.org/x?t=%7E&sign=a%2Bb"),
    ],
)
def test_further_parameters(url: str, sent: str) -> None:
    """They follow those of the URL, and neither is encoded again."""
    assert str(with_query(url, "sign=a%2Bb")) == sent


def test_a_url_is_of_one_service(tmp_path: Path) -> None:
    """Two flags say two things."""
    told = problem(tmp_path, "https://proxy.example.org/x", "feishu = true\nslack = true")
    assert "webhooks.0.url: it is of one service: leave all but one of feishu, slack out" in told


@pytest.mark.parametrize(
    ("url", "header"),
    [
        ("https://example.org/", None),
        ("https://me@example.org/", "Basic bWU6"),
        ("https://me:p%40w@example.org/", "Basic bWU6cEB3"),
        ("https://:pw@example.org/", "Basic OnB3"),
        ("https://me:%E9@example.org/", "Basic bWU677+9"),
    ],
)
def test_user_and_password_as_a_header(url: str, header: str | None) -> None:
    """Percent-decoded, in base64."""
    if "%E9" not in url:
        assert basic_auth(url) == header
    else:
        with pytest.raises(ValueError, match="Latin-1"):
            basic_auth(url)


@pytest.mark.parametrize("key", ["rate", "wait"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e6"])
def test_rate_and_wait_are_plain_numbers(tmp_path: Path, key: str, value: str) -> None:
    """Whatever else TOML takes for a number is refused with its key."""
    told = problem(tmp_path, "https://example.org/", f'secret = "{SECRET}"\n{key} = {value}')
    assert f"webhooks.0.{key}: give" in told
