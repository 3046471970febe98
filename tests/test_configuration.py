"""`poller config`: a file to begin with, and what is in force without its secrets."""

from pathlib import Path

import pytest

from poller.cli.configuration import init, print_configuration
from poller.cli.runner import FAILED, CommandFailed
from poller.settings.config import load, origin_of_keys
from poller.settings.paths import DEFAULT_STATE_DIR
from poller.settings.shipped import template
from tests.receiver import SECRET

TOML = """\
budget.requests = 20
[redis]
url_file = "url"
[watchlist]
futu_groups = ["自選", "a\\u001b[31mb\\u202e"]
[watchlist.weights]
"HK.*" = 2.0
[[webhooks]]
name = "desk"
url = "https://user:hunter2@example.org/services/hidden?key=hidden"
secret = ["{secret}", "{secret}"]
[[webhooks]]
name = "chat"
url = "slack://hidden-a/hidden-b/hidden-c/#channel"
"""


def test_a_template_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the other commands find it, or where asked; loaded, it is the defaults."""
    monkeypatch.chdir(tmp_path)
    init()
    init(tmp_path / "own/mine.toml")
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{tmp_path}/config/poller.toml", f"{tmp_path}/own/mine.toml"]
    assert err.splitlines()[-1].endswith(f"poller check --config {tmp_path}/own/mine.toml")
    assert load(None, {}).state_dir == tmp_path / "config" / DEFAULT_STATE_DIR
    for there in ("own/mine.toml", "own"):
        with pytest.raises(CommandFailed, match=f"{tmp_path}/{there}: it exists") as caught:
            init(Path(there))
        assert caught.value.code == FAILED
    assert (tmp_path / "own/mine.toml").read_text(encoding="utf-8") == template()
    init(Path("odd\x1b[31m.toml"))
    shown = "".join(capsys.readouterr())
    assert "odd\\x1b[31m.toml" in shown
    assert "\x1b" not in shown


def test_what_counts_is_shown_with_its_place_and_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Defaults, the file, a file of a secret and a variable are told apart."""
    file = tmp_path / "poller.toml"
    file.write_text(TOML.format(secret=SECRET), encoding="utf-8")
    (tmp_path / "url").write_text("rediss://:hunter2@a:1,b:2")
    environment = {
        "POLLER_WEB__PORT": "0",
        "POLLER_WEB__TOKEN": "hidden-hidden-hidden",
        "POLLER_WATCHLIST__WEIGHTS__HK.00700": "3",
    }
    print_configuration(load(file, environment), file, environment, file)
    out = capsys.readouterr().out
    for secret in ("hunter2", "hidden", SECRET, "\x1b", "\u202e"):
        assert secret not in out
    rows = [line.split(maxsplit=1) for line in out.splitlines()[1:]]
    told = {key: " ".join(rest.split()) for key, rest in rows}
    assert told["budget.requests"] == f"20 {file}"
    assert told["budget.period"] == "30.0 default"
    assert told["redis.url"] == f"*** (a:1, b:2) {file} (redis.url_file)"
    assert told["web.port"] == "0 POLLER_WEB__PORT"
    assert told["web.token"] == "*** POLLER_WEB__TOKEN"
    weights = '{"HK.*": 2.0, "HK.00700": 3.0}'
    variable = "POLLER_WATCHLIST__WEIGHTS__HK.00700"
    assert told["watchlist.weights"] == f"{weights} {file}, {variable}"
    assert told["watchlist.futu_groups"].startswith('["自選", ')
    assert told["webhooks.0.url"] == f"*** (example.org) {file}"
    assert told["webhooks.0.secret"] == f"***, *** {file}"
    assert told["webhooks.1.url"] == f"*** {file}"
    assert told["state_dir"] == f'"{tmp_path}/state" default'


def test_every_key_that_was_written_has_a_place(tmp_path: Path) -> None:
    """Also one in a table of a list, and a list that is empty."""
    file = tmp_path / "poller.toml"
    file.write_text("watchlist.codes = []\n[[opend]]\nport = 1\n[[opend]]\nport = 2\n")
    assert origin_of_keys(file, {"POLLER_OPEND__1__HOST": "h"}) == {
        "watchlist.codes": f"{file}: watchlist.codes",
        "opend.0.port": f"{file}: opend.0.port",
        "opend.1.port": f"{file}: opend.1.port",
        "opend.1.host": "POLLER_OPEND__1__HOST",
    }
