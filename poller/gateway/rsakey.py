"""The RSA key that switches on the SDK's encryption: what the SDK would fail with, found before."""

import codecs
from pathlib import Path
from typing import Final

from poller.textfile import KIB, UnusableFile, read_bytes

BITS: Final = 1024
"""The only size that OpenD and the SDK can use: the SDK cuts what it decrypts at 128 bytes."""

LARGEST: Final = 64 * KIB
"""Bytes of the file; a key of this size in PEM has 900."""

_FIX: Final = "name the private key that OpenD has as rsa_private_key"
_MARKS: Final = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def problem_of_key(path: Path) -> str | None:
    """Return why the SDK cannot use this file, and the fix; None: it can. Never raises."""
    try:
        data = read_bytes(path, limit=LARGEST)
    except UnusableFile as problem:
        return str(problem)
    if data.startswith(_MARKS):
        return f"{path} begins with a byte-order mark, which the SDK cannot read: save it without"
    if b"-----BEGIN CERTIFICATE" in data:
        return f"{path} holds a certificate: {_FIX}"
    if b"-----BEGIN" not in data:
        return f"{path} holds no key in PEM, a text that begins with -----BEGIN: {_FIX}"
    if b"ENCRYPTED" in data:
        plain = f"openssl rsa -traditional -in {path} -out plain.pem"
        return f"{path} is locked with a passphrase; write it without one: {plain}"
    return _problem_of_pem(path, data)


def _problem_of_pem(path: Path, data: bytes) -> str | None:
    from Crypto.PublicKey import RSA  # noqa: PLC0415  slow, and only needed with encryption

    try:
        key = RSA.import_key(data)
    except (ValueError, IndexError, TypeError) as problem:
        return f"{path} holds no RSA key that can be read ({problem}): {_FIX}"
    if not key.has_private():
        return f"{path} holds a public key: {_FIX}"
    if (bits := key.size_in_bits()) != BITS:
        return (
            f"{path} holds {bits} bits; OpenD and the SDK need {BITS}, the same key at both ends: "
            f"openssl genrsa -traditional -out opend.pem {BITS}"
        )
    return None
