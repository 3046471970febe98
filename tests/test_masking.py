"""What an endpoint answers is kept without its secrets, however it spells them."""

import base64
import html
import json
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus, unquote, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.delivery.destinations.webhook import SignedPost
from poller.delivery.endpoint import Endpoint
from poller.delivery.masking import LEAST, MASK, Mask, secrets_in_lines
from poller.delivery.retry import Failed
from poller.delivery.selection import Selection
from tests.receiver import RawReceiver, status
from tests.test_webhook import now

KEY = b"\xfb\xff\xbea secret of thirty-two bytes \xff\xff"
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def endpoint(url: str) -> Endpoint:
    """Return an endpoint with this URL."""
    return Endpoint("desk", url, (SECRET,), Selection())


def _every_byte(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


def _every_unit(text: str) -> str:
    return re.sub("(....)", r"\\u\1", text.encode("utf-16-be").hex().upper())


SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent-encoded": lambda text: quote(text, safe=""),
    "in small letters": lambda text: quote(text, safe="").lower(),
    "as a form": quote_plus,
    "every byte": _every_byte,
    "twice": lambda text: quote(quote(text, safe=""), safe=""),
    "percent-decoded": unquote,
    "as a form's value": unquote_plus,
    "json": json.dumps,
    "json in json": lambda text: json.dumps(json.dumps({"url": text})),
    "json with slashes": lambda text: json.dumps(text).replace("/", "\\/"),
    "json without ascii": lambda text: json.dumps(text, ensure_ascii=False),
    "json, all escaped": _every_unit,
    "html": lambda text: html.escape(unquote(text)),
    "html by number": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "python": repr,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64 in the middle": lambda text: base64.b64encode(f"x{text}yz".encode()).decode(),
    "base64 further on": lambda text: base64.b64encode(f"xx{text}y".encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "utf-16": "\0".join,
}
SAFE = st.text("abcdefghijkmnpqrstuvwxyz23456789", min_size=LEAST + 2, max_size=40)
PART = SAFE | st.text(min_size=LEAST, max_size=20).map(lambda text: quote(text + "s3cr3t", safe=""))


def words_of(text: str) -> str:
    """Return a text without what every text may hold: nothing of it must tell a secret."""
    return text.replace(MASK, "")


@given(part=PART, query=PART, spelled=st.sampled_from(sorted(SPELLINGS)))
def test_no_part_of_a_url_is_left(part: str, query: str, spelled: str) -> None:
    """Neither a path segment nor a value of the query, in any spelling, alone or in the whole."""
    mask = endpoint(f"https://example.org/hook/{part}/x?v=1&sig={query}").mask()
    spell = SPELLINGS[spelled]
    for secret in (part, query):
        for text in (secret, f"/hook/{secret}/", f"POST /a?b=1&sig={secret} HTTP/1.1"):
            left = mask(f"<{spell(text)}>")
            assert MASK in left
            for again in (str, unquote, unquote_plus):
                assert spell(secret) not in words_of(again(left))
                assert again(secret) not in words_of(again(left))


@given(user=PART, password=PART, spelled=st.sampled_from(sorted(SPELLINGS)))
def test_no_user_and_no_password_is_left(user: str, password: str, spelled: str) -> None:
    """Nor the header they are sent in."""
    mask = endpoint(f"https://{user}:{password}@example.org/").mask()
    pair = f"{unquote(user)}:{unquote(password)}"
    spell = SPELLINGS[spelled]
    for charset in ("utf-8", "latin-1"):
        header = base64.b64encode(pair.encode(charset, "replace")).decode()
        assert mask(f"Authorization: Basic {header}") == f"Authorization: Basic {MASK}"
        assert header not in mask(f"<{spell(header)}>")
    for secret in (user, password, unquote(password)):
        assert spell(secret) not in words_of(mask(f"<{spell(secret)}>"))


def test_log_lines_hide_tokens_and_keep_words() -> None:
    """They may be about anything: a word of a URL would be blotted out wherever it is said."""
    token, long, spaced = "t0ken-x", "a-long-word-of-a-path", "Two%20Words"
    url = f"https://example.org/services/{token}/{long}?key={spaced}&alone-t0ken"
    found = set(secrets_in_lines(url))
    assert {token, long, spaced, "Two Words", "alone-t0ken"} <= found
    assert not found & {"services", "key", "example.org"}


def test_a_short_password_is_one() -> None:
    """It is masked, and so is the header, though a part of a path so short would not be."""
    mask = endpoint("https://me:pw@example.org/hook?v=1").mask()
    header = base64.b64encode(b"me:pw").decode()
    assert mask(f"Basic {header} me:pw /hook v=1 true") == f"Basic {MASK} {MASK} /hook v=1 true"


def test_a_part_that_is_short_when_decoded_is_no_secret() -> None:
    """Else every `ab` of an answer would be blotted out."""
    mask = endpoint("https://example.org/%61%62/%00%00").mask()
    assert mask("about %61%62 abc \0") == f"about {MASK} abc \0"


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        SECRET.removeprefix("whsec_"),
        SECRET.rstrip("="),
        SECRET.replace("+", "-").replace("/", "_"),
        quote(SECRET, safe=""),
        json.dumps(SECRET).replace("/", "\\/"),
        base64.b64encode(SECRET.encode()).decode(),
    ],
)
def test_no_signing_secret_is_left(spelling: str) -> None:
    """With and without its prefix and padding, in both alphabets of base64."""
    left = endpoint("https://example.org/").mask()(f"<{spelling}>")
    assert left in {f"<{MASK}>", f"<{MASK}=>", f"<whsec_{MASK}>", f'<"{MASK}">', f"<{MASK}==>"}


@pytest.mark.parametrize(
    ("part", "echoed"),
    [
        ("s3cr%252Ft%2520x", b"s3cr/t x"),
        ("s3cr%C3%A9tx", "s3cr\u00c3\u00a9tx".encode()),
        ("s3cr%C3%A9tx", "s3cr\u00e9tx".encode("latin-1")),
        ("s3cr%00tx", b"s3crtx"),
    ],
    ids=["decoded twice", "read as Latin-1", "sent as Latin-1", "without NUL"],
)
def test_a_part_that_was_decoded_oddly_is_masked(part: str, echoed: bytes) -> None:
    """As a chain of receivers has it, each of which thinks that it must decode."""
    mask = endpoint(f"https://example.org/hook/{part}").mask()
    assert mask(b"<" + echoed + b">") == f"<{MASK}>"


def test_a_signing_secret_in_words_is_masked_as_words() -> None:
    """A receiver that tells its key tells it decoded."""
    words = "four and twenty words of a secret"
    secret = "whsec_" + base64.b64encode(words.encode()).decode()
    mask = Endpoint("desk", "https://example.org/", (secret,), Selection()).mask()
    assert mask(f"my key is {words}") == f"my key is {MASK}"


def test_what_is_cut_off_does_not_begin_a_secret() -> None:
    """A secret that goes past the end of what is kept is masked as a whole."""
    mask = Mask(["hunter22-of-the-path"])
    for before in range(100):
        text = "x" * before + quote(_every_byte("hunter22-of-the-path"), safe="")
        left = mask(text, 60)
        assert left == "x" * before + MASK if before < 60 else left == "x" * 60


@pytest.mark.parametrize(
    "spelled", ["as it is", "every byte", "json, all escaped", "html by number", "base64"]
)
def test_a_secret_that_the_receiver_cuts_off_is_masked(spelled: str) -> None:
    """Some echo the beginning of a request, or close in the midst of it."""
    part = "hunter22-s3cr3t-part"
    mask = endpoint(f"https://example.org/hook/{part}").mask()
    whole, begun = SPELLINGS[spelled](part), SPELLINGS[spelled](part[:LEAST])
    for length in range(len(begun), len(whole) + 1):
        assert mask(f"it was: {whole[:length]}") in {f"it was: {MASK}", f"it was: {MASK}="}


@given(st.binary(max_size=300))
def test_anything_can_be_masked(data: bytes) -> None:
    """It never raises, and without a secret it changes nothing."""
    assert Mask(["hunter22"])(data) == data.decode("utf-8", "replace")


@given(
    st.lists(
        st.sampled_from(
            ["\\u", "d83d", "de00", "\\ud83d\\ude00", "%", "%f", "&#", "x110000;", "&#9999999;",
             "\\", "\\x", "\0", "hunter22", "hunter", "%32%32", "&am", "p;"]
        )
    ).map("".join)
)  # fmt: skip
def test_broken_escapes_hide_nothing(text: str) -> None:
    """They are taken as they stand."""
    assert "hunter22" not in Mask(["hunter22"])(text)


async def test_a_receiver_that_echoes_everything_leaks_nothing() -> None:
    """Request line and headers, as they came, and as gateways pass them on."""
    parts = ["p4th-s3cr3t", "qu3ry%2Fs3cr3t", "us3r%40corp", "p4ssw%2Brd"]
    heads: list[bytes] = []

    def echo(_: int, head: bytes) -> tuple[bytes, None]:
        text = head.decode()
        lines = dict(line.split(": ", 1) for line in text.split("\r\n")[1:] if line)
        told = [text, unquote(text), json.dumps(lines), json.dumps(json.dumps(lines))]
        told += [base64.b64encode(head).decode(), html.escape(text), quote(text), head.hex()]
        heads.append(head)
        return status(500, body="\n".join(told).encode()), None

    async with RawReceiver(echo).running() as receiver:
        place = f"127.0.0.1:{receiver.port}/hook/{parts[0]}?sig={parts[1]}"
        sender = SignedPost(endpoint(f"http://{parts[2]}:{parts[3]}@{place}"), now=now)
        outcome = await sender.post("id", "{}")
        await sender.close()
    assert isinstance(outcome, Failed)
    assert "webhook-signature" in outcome.answer
    header = base64.b64encode(b"us3r@corp:p4ssw+rd").decode()
    assert header.encode() in heads[0]
    for part in (*parts, *map(unquote, parts), header):
        for spell in (str, lambda text: quote(text, safe="")):
            assert spell(part).lower() not in outcome.answer.lower()
    for cut in range(3):
        whole = base64.b64encode(b"p4th-s3cr3t"[cut:]).decode()[:8]
        assert whole not in outcome.answer
