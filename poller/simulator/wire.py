"""OpenD's wire protocol: header, messages, encryption. No sockets.

A packet is a header of 44 bytes (little endian) and a body of at least one. The header: `FT`,
protocol id, format (0: protobuf), version, serial (echoed in the reply), length of the body as
sent, SHA-1 of the plain body, eight zero bytes. The messages are the SDK's generated classes,
loaded without importing the SDK, which would open a log and install a signal handler.
"""

import hashlib
import importlib.util
import struct
import sys
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from typing import Any, Final, TypeAlias

from Crypto.Cipher import AES, PKCS1_v1_5
from Crypto.PublicKey.RSA import RsaKey
from Crypto.Util.Padding import pad, unpad

Message: TypeAlias = Any
"""A message of the SDK, whose generated classes have no type hints."""

_LAYOUT: Final = struct.Struct("<2sI2B2I20s8s")
HEADER_SIZE: Final = _LAYOUT.size
LONGEST_BODY: Final = 1 << 20
_MAGIC: Final = b"FT"
_PROTOBUF: Final = 0
_AES_BLOCK: Final = 16
_RSA_PLAIN: Final = 100
"""Plain bytes per block, fixed in the SDK; it reads replies in blocks of 128 bytes (1024 bits)."""


class Garbled(ValueError):
    """Bytes that are not this protocol: close the connection."""


class Proto(IntEnum):
    """The calls that the simulator serves."""

    INIT_CONNECT = 1001
    GLOBAL_STATE = 1002
    KEEP_ALIVE = 1004
    USER_INFO = 1005
    STATIC_INFO = 3202
    SNAPSHOT = 3203
    GROUP = 3213
    GROUPS = 3222
    SHORT_INTEREST = 3249
    RANK = 3415


_MODULES: Final = {
    Proto.INIT_CONNECT: "InitConnect_pb2",
    Proto.GLOBAL_STATE: "GetGlobalState_pb2",
    Proto.KEEP_ALIVE: "KeepAlive_pb2",
    Proto.USER_INFO: "GetUserInfo_pb2",
    Proto.STATIC_INFO: "Qot_GetStaticInfo_pb2",
    Proto.SNAPSHOT: "Qot_GetSecuritySnapshot_pb2",
    Proto.GROUP: "Qot_GetUserSecurity_pb2",
    Proto.GROUPS: "Qot_GetUserSecurityGroup_pb2",
    Proto.SHORT_INTEREST: "Qot_GetShortInterest_pb2",
    Proto.RANK: "Qot_GetShortSellingRank_pb2",
}


@cache
def messages(name: str) -> Message:
    """Import a generated module of the SDK by its bare name, as these modules import each other."""
    either = (importlib.util.find_spec(sdk) for sdk in ("futu", "moomoo"))  # one of them will do
    spec = next((found for found in either if found is not None), None)
    if spec is None or not spec.submodule_search_locations:
        msg = "the simulator needs the messages of futu-api, which is not installed"
        raise ModuleNotFoundError(msg)
    folder = str(Path(spec.submodule_search_locations[0]) / "common" / "pb")
    if folder not in sys.path:
        sys.path.append(folder)
    return import_module(name)


@cache
def market_numbers() -> dict[str, int]:
    """Return the SDK's number of each market, by the prefix of its codes: {"HK": 1, …}."""
    numbers = {}
    for name, number in messages("Qot_Common_pb2").QotMarket.items():
        _, _, rest = name.partition("_")
        numbers[rest.removeprefix("CN").removesuffix("_Security").upper()] = number
    return numbers


def request(proto: Proto) -> Message:
    """Return an empty request of this call."""
    return messages(_MODULES[proto]).Request()


def response(proto: int) -> Message:
    """Return an empty response of this call; all responses begin with the same fields."""
    known = Proto(proto) if proto in set(Proto) else Proto.KEEP_ALIVE
    return messages(_MODULES[known]).Response()


def parse(proto: Proto, body: bytes, *, reply: bool = False) -> Message:
    """Parse a request (or a response) from its plain bytes; raises Garbled."""
    message = response(proto) if reply else request(proto)
    try:
        message.ParseFromString(body)
    except Exception as fault:  # protobuf's own error differs between its implementations
        msg = f"no body of {proto.name}"
        raise Garbled(msg) from fault
    return message


@dataclass(frozen=True, slots=True)
class Header:
    """The variable part of a header. `length`: of the body as sent; `digest`: of the plain body."""

    proto: int
    serial: int
    length: int
    digest: bytes

    def pack(self) -> bytes:
        """Return the 44 bytes."""
        middle = (self.proto, _PROTOBUF, 0, self.serial, self.length, self.digest)
        return _LAYOUT.pack(_MAGIC, *middle, b"")

    @classmethod
    def parse(cls, head: bytes) -> "Header":
        """Parse 44 bytes; raises Garbled."""
        magic, proto, form, _, serial, length, digest, _ = _LAYOUT.unpack(head)
        if magic != _MAGIC or form != _PROTOBUF or not 0 < length <= LONGEST_BODY:
            msg = "no header of this protocol"
            raise Garbled(msg)
        return cls(proto, serial, length, digest)


class Session:
    """The encryption of one connection. `rsa`: the private key of both ends; None: no encryption.

    With a key, InitConnect is encrypted with RSA; its reply and everything after it are encrypted
    once `encrypted` is set. Every packet starts from the same `iv`.
    """

    def __init__(self, rsa: RsaKey | None) -> None:
        self._rsa = None if rsa is None else PKCS1_v1_5.new(rsa)
        self._rsa_block = 0 if rsa is None else rsa.size_in_bytes()
        self.key, self.iv = token_hex(8), token_hex(8)
        self.encrypted = False

    def open(self, header: Header, body: bytes) -> bytes:
        """Return the plain body of a packet; raises Garbled if it does not match its digest."""
        try:
            plain = self._opened(header.proto, body)
        except ValueError as fault:
            msg = "a body that cannot be decrypted"
            raise Garbled(msg) from fault
        if _digest(plain) != header.digest:
            msg = "a body that does not fit its digest"
            raise Garbled(msg)
        return plain

    def seal(self, proto: int, serial: int, plain: bytes) -> bytes:
        """Return the packet of a reply."""
        body = self._sealed(proto, plain) if self.encrypted else plain
        return Header(proto, serial, len(body), _digest(plain)).pack() + body

    def _opened(self, proto: int, body: bytes) -> bytes:
        if proto == Proto.INIT_CONNECT and self._rsa is not None:
            # a wrong padding decrypts to nothing, which then does not match the digest
            blocks = _blocks(body, self._rsa_block)
            return b"".join([bytes(self._rsa.decrypt(block, b"")) for block in blocks])
        if proto != Proto.INIT_CONNECT and self.encrypted:
            return bytes(unpad(self._aes().decrypt(body), _AES_BLOCK))
        return body

    def _sealed(self, proto: int, plain: bytes) -> bytes:
        if proto == Proto.INIT_CONNECT and self._rsa is not None:
            return b"".join(map(self._rsa.encrypt, _blocks(plain, _RSA_PLAIN)))
        return bytes(self._aes().encrypt(pad(plain, _AES_BLOCK)))

    def _aes(self) -> Any:  # noqa: ANN401  pycryptodome's cipher objects
        return AES.new(self.key.encode(), AES.MODE_CBC, iv=self.iv.encode())


def _blocks(text: bytes, size: int) -> list[bytes]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def _digest(plain: bytes) -> bytes:
    """Return the protocol's checksum, which protects against accidents only."""
    return hashlib.sha1(plain, usedforsecurity=False).digest()
