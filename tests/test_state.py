"""What OpenD says of itself, in words: a hint, whatever it holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.gateway.state import changes_rights, trouble_in, trouble_of, version_of


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({}, ""),
        ({"program_status_type": "READY", "qot_logined": True}, ""),
        ({"program_status_type": "N/A", "qot_logined": True}, ""),
        ({"program_status_type": "READY", "qot_logined": False}, "not logged in to the vendor's"),
        ({"program_status_type": "FORCE_UPDATE", "qot_logined": False}, "install the newest"),
        ({"program_status_type": "NEED_PIC_VERIFY_CODE"}, "a picture code"),
        (
            {"program_status_type": "LOGIN_FAILED", "program_status_desc": "\x1b[31m密码错误"},
            r"(\x1b[31m密码错误)",
        ),
    ],
)
def test_trouble_has_a_cure(state: dict[str, object], told: str) -> None:
    """Each state of the program in its own words, with what OpenD adds made harmless."""
    trouble = trouble_of(state)
    assert told in trouble
    assert bool(told) == bool(trouble)


@pytest.mark.parametrize(
    ("text", "version"), [("1011", "10.11"), ("906", "9.06"), ("", ""), ("x", "x"), (None, "")]
)
def test_the_version(text: object, version: str) -> None:
    """As the vendor writes it."""
    assert version_of({"server_ver": text}) == version


@pytest.mark.parametrize(
    ("notification", "told"),
    [
        (("GTW_EVENT", "KickedOut", ""), "a login of its account elsewhere"),
        (("GTW_EVENT", "NeedPhoneVerifyCode", "\x1b"), r"phone code: type it into its window or"),
        (("GTW_EVENT", "TradePwdChanged", ""), None),
        (("PROGRAM_STATUS", "FORCE_UPDATE", ""), "install the newest"),
        (("PROGRAM_STATUS", "READY", ""), ""),
        (("CONN_STATUS", None, {"qot_logined": False}), "not logged in to the vendor's quote"),
        (("CONN_STATUS", None, {"qot_logined": True}), ""),
        (("QOT_RIGHT", None, {}), None),
        (("API_LEVEL", None, None), None),
        ("nonsense", None),
        (None, None),
    ],
)
def test_notifications(notification: object, told: str | None) -> None:
    """What is wrong, that nothing is any more, or nothing of the kind."""
    trouble = trouble_in(notification)
    assert (trouble is None) == (told is None)
    assert told is None or told in (trouble or "")
    assert bool(told) == bool(trouble)


def test_a_notification_of_rights() -> None:
    """Only that kind makes them be tried."""
    assert changes_rights(("QOT_RIGHT", None, {"us_qot_right": "N/A"}))
    assert not changes_rights(("CONN_STATUS", None, {}))
    assert not changes_rights("QOT_RIGHT")


@given(st.dictionaries(st.sampled_from(["program_status_type", "qot_logined"]), st.text()))
def test_nothing_makes_it_fail(state: dict[str, object]) -> None:
    """A state that nobody has seen is none."""
    assert isinstance(trouble_of(state), str)
