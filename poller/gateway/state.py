"""OpenD's own state, in words for an operator and with a fix. Pure.

The names are those of the SDK's `get_global_state` and notifications; their meaning is from OpenD's
messages (Common.proto, Notify.proto). The state is a hint; only the answer to a request counts.
"""

from collections.abc import Mapping
from typing import Final

from poller.printable import printable

_PROGRAM: Final = {
    "LOADED": "OpenD has only started: wait, or log it in",
    "LOGING": "OpenD is logging in: wait a moment",
    "NEED_PIC_VERIFY_CODE": "OpenD waits for a picture code: type it into its window or console",
    "NEED_PHONE_VERIFY_CODE": "OpenD waits for a phone code: type it into its window or console",
    "LOGIN_FAILED": "OpenD could not log in: correct its account and password, and log it in",
    "FORCE_UPDATE": "OpenD is too old to log in: install the newest version",
    "NESSARY_DATA_PREPARING": "OpenD is preparing its data: wait a moment",
    "NESSARY_DATA_MISSING": "OpenD lacks data that it needs: start it again",
    "UN_AGREE_DISCLAIMER": "OpenD waits for the disclaimer: accept it in the vendor's app or page",
    "FORCE_LOGOUT": "OpenD was logged out, by a login elsewhere or a new password: log it in again",
}
_EVENTS: Final = {
    "ForceUpdate": _PROGRAM["FORCE_UPDATE"],
    "LoginFailed": _PROGRAM["LOGIN_FAILED"],
    "UnAgreeDisclaimer": _PROGRAM["UN_AGREE_DISCLAIMER"],
    "KickedOut": "OpenD was logged out by a login of its account elsewhere: log it in again",
    "LoginPwdChanged": "OpenD was logged out, its account has a new password: log it in with that",
    "BanLogin": "the vendor does not let this account log in: ask the vendor",
    "NeedPicVerifyCode": _PROGRAM["NEED_PIC_VERIFY_CODE"],
    "NeedPhoneVerifyCode": _PROGRAM["NEED_PHONE_VERIFY_CODE"],
    "NessaryDataMissing": _PROGRAM["NESSARY_DATA_MISSING"],
    "EnableDeviceLock": "the account has a new device lock: log OpenD in again",
}
_NOT_QUOTES: Final = "OpenD is not logged in to the vendor's quote servers: log it in again"
_LONGEST: Final = 200


def trouble_of(state: Mapping[str, object]) -> str:
    """Return why an OpenD cannot serve now, with the fix, or "" if it reports no trouble."""
    told = _PROGRAM.get(str(state.get("program_status_type")), "")
    if not told and state.get("qot_logined") in {False, "0"}:
        told = _NOT_QUOTES
    said = printable(str(state.get("program_status_desc") or ""), _LONGEST)
    return f"{told} ({said})" if told and said else told


def trouble_in(notification: object) -> str | None:
    """Return the trouble a notification reports, "" if none is left, None if it is about no state.

    `notification`: kind, subordinate kind and data, as the SDK's `SysNotifyHandlerBase` has them.
    """
    match notification:
        case ("GTW_EVENT", str(event), said) if event in _EVENTS:
            told = _EVENTS[event]
            return f"{told} ({printable(str(said), _LONGEST)})" if said else told
        case ("PROGRAM_STATUS", str(status), said):
            return trouble_of({"program_status_type": status, "program_status_desc": said})
        case ("CONN_STATUS", _, dict(state)):
            return trouble_of(state)
        case _:
            return None


def changes_rights(notification: object) -> bool:
    """Return whether a notification is about the account's quote rights."""
    match notification:
        case ("QOT_RIGHT", _, _):
            return True
        case _:
            return False


def version_of(state: Mapping[str, object]) -> str:
    """Return the version of an OpenD: 10.11 for `1011`."""
    text = str(state.get("server_ver") or "")
    return f"{int(text) // 100}.{int(text) % 100:02}" if text.isascii() and text.isdigit() else text
