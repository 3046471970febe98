"""The guard's list: what is inside, and the neighbours that must stay reachable."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.delivery.addresses import as_address, is_public, names_loopback, refusal

INNER = """
0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.100.100.200 100.127.255.255 127.0.0.1
127.255.255.255 168.63.129.16 169.254.0.0 169.254.169.254 169.254.255.255 172.16.0.0
172.31.255.255 192.0.0.0 192.0.0.192 192.0.0.255 192.0.2.1 192.88.99.1 192.168.0.0 192.168.255.255
198.18.0.0 198.19.255.255 198.51.100.7 203.0.113.255 224.0.0.1 239.255.255.255 240.0.0.1
255.255.255.255 :: ::1 ::7f00:1 ::a00:1 ::5db8:d70e ::ffff:10.0.0.1 ::ffff:127.0.0.1
::ffff:169.254.169.254 ::ffff:168.63.129.16 ::ffff:0:a00:1 ::ffff:0:5db8:d70e 64:ff9b::10.0.0.1
64:ff9b::a9fe:a9fe 64:ff9b:1:: 64:ff9b:1::5db8:d70e 64:ff9b:1:ffff:ffff:ffff:ffff:ffff 100::1
100:0:0:1::1 2001::1 2001:0:5db8:d70e::1 2001:2::1 2001:10::1 2001:20::1
2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff 2001:db8::1 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff
2002:a00:1:: 2002:7f00:1::1 2002:a9fe:a9fe:: 2002:c0a8:101::1 3fff::
3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff 4000::1 5f00::1 fc00::1 fd00:ec2::254
fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff fe80::1 fe80::a9fe:a9fe%eth0 febf::1 fec0::1 feff::1
ff02::1 ff0e::1 1::1
"""

OUTER = """
1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 168.63.129.15
168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0
192.0.3.0 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0
198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255 93.184.215.14
::ffff:93.184.215.14 64:ff9b::93.184.215.14 2002:5db8:d70e::1 2001:200:: 2001:db7:ffff::1
2001:db9::1 2000::1 2003::1 2606:2800:21f::1 2a00:1450:4001::1 3ffe:ffff::1 3fff:1000::1
2400:cb00::1%eth0
"""


@pytest.mark.parametrize("text", INNER.split())
def test_what_is_inside(text: str) -> None:
    """This machine, its networks, its cloud, and addresses that are no destination."""
    address = as_address(text)
    assert address is not None
    assert not is_public(address)
    told = refusal(text, local=False, allow_private=False)
    assert told is not None
    assert "allow_private = true" in told
    assert refusal(text, local=False, allow_private=True) is None


@pytest.mark.parametrize("text", OUTER.split())
def test_what_stays_reachable(text: str) -> None:
    """The internet begins right behind, also through a translator to IPv4."""
    assert refusal(text, local=False, allow_private=False) is None


@given(st.integers(0, 2**32 - 1), st.sampled_from(["::ffff:0:0", "64:ff9b::", "2002::"]))
def test_wrapping_changes_nothing(number: int, wrapper: str) -> None:
    """Where a packet ends up as IPv4, that address decides."""
    shift = 80 if wrapper == "2002::" else 0
    wrapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address(wrapper)) | number << shift)
    assert is_public(wrapped) is is_public(ipaddress.IPv4Address(number))


@given(st.ip_addresses())
def test_what_python_keeps_inside_is_inside(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """The list is stricter than the interpreter's, but for the two ways to wrap a public one."""
    if is_public(address) and not str(address).startswith(("2002:", "64:ff9b:", "::ffff:")):
        assert address.is_global
        assert not address.is_multicast


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True), ("LOCALHOST", True), ("127.0.0.1", True), ("127.9.9.9", True),
        ("::1", True), ("::ffff:127.0.0.1", True), ("::1%lo", True), ("0.0.0.0", False),  # noqa: S104
        ("2002:7f00:1::", False), ("localhost.example.org", False), ("", False),
    ],
)  # fmt: skip
def test_which_hosts_name_the_loopback(host: str, *, loopback: bool) -> None:
    """By their very text; what only leads there does not."""
    assert names_loopback(host) is loopback
