"""Whose address a request counts by: what the socket says, unless a trusted proxy says more; never an exception."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.address import caller_address, counted_peers

LOCAL = (ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8"), ip_network("2001:db8:ffff::/48"))
ADDRESSES = st.ip_addresses().map(str)


def found(peer: str, *values: str) -> str:
    """Return whose a request is with these values of X-Forwarded-For, under the networks trusted here."""
    fields = [(b"host", b"x"), *[(b"x-forwarded-for", value.encode("latin-1")) for value in values]]
    return caller_address(peer, fields, LOCAL)


@pytest.mark.parametrize(
    ("peer", "values", "wanted"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("192.0.2.1", ("198.51.100.1",), "192.0.2.1"),  # the peer is no trusted proxy: forged
        ("127.0.0.1", (), "127.0.0.1"),
        ("127.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("127.0.0.1", ("203.0.113.9, 198.51.100.1",), "198.51.100.1"),  # further left may be made up
        ("127.0.0.1", ("198.51.100.1, 10.1.2.3",), "198.51.100.1"),  # a chain of trusted proxies
        ("127.0.0.1", ("198.51.100.1", "10.1.2.3"), "198.51.100.1"),  # fields are one list
        ("127.0.0.1", ("198.51.100.1", "203.0.113.9"), "203.0.113.9"),
        ("127.0.0.1", ("10.9.9.9, 10.1.2.3",), "10.9.9.9"),  # all of them trusted: the furthest
        ("127.0.0.1", ("198.51.100.1, unknown",), "127.0.0.1"),
        ("127.0.0.1", ("198.51.100.1, unknown, 10.1.2.3",), "10.1.2.3"),
        ("127.0.0.1", ("",), "127.0.0.1"),
        ("127.0.0.1", (" 198.51.100.1 ",), "198.51.100.1"),
        ("127.0.0.1", ("198.51.100.1:4711",), "198.51.100.1"),
        ("127.0.0.1", ('"198.51.100.1:4711"',), "198.51.100.1"),
        ("127.0.0.1", ("::ffff:198.51.100.1",), "198.51.100.1"),
        ("::ffff:127.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("::ffff:192.0.2.1", (), "192.0.2.1"),
        ("127.0.0.1", ("2001:db8:1:2:3:4:5:6",), "2001:db8:1:2::/64"),
        ("127.0.0.1", ("[2001:db8:1:2:3:4:5:6]:4711",), "2001:db8:1:2::/64"),
        ("127.0.0.1", ("fe80::1%eth0",), "fe80::/64"),
        ("2001:db8:1:2::9", ("198.51.100.1",), "2001:db8:1:2::/64"),
        ("2001:db8:ffff::9", ("198.51.100.1",), "198.51.100.1"),
        ("fe80::1%eth0", (), "fe80::/64"),
    ],
)
def test_whose_address_counts(peer: str, values: tuple[str, ...], wanted: str) -> None:
    """The right-most hop that is no trusted proxy, where the peer is one; IPv6 by its /64."""
    assert found(peer, *values) == wanted


@given(ADDRESSES, st.lists(st.text(st.characters(max_codepoint=255), max_size=60), max_size=4))
def test_no_field_makes_an_exception(peer: str, values: list[str]) -> None:
    """Whatever stands in the field, there is an answer, and it is an address or a /64."""
    answer = found(peer, *values)
    assert answer.endswith("/64") or ip_address(answer)


@given(st.text(max_size=60), ADDRESSES)
def test_no_peer_makes_an_exception(peer: str, hop: str) -> None:
    """The same of the peer; one that is no address stands for itself."""
    assert isinstance(found(peer, hop), str)


@given(ADDRESSES, st.lists(ADDRESSES, max_size=5))
def test_nothing_is_believed_without_trusted_proxies(peer: str, hops: list[str]) -> None:
    """Where none are configured the field does not exist."""
    fields = [(b"x-forwarded-for", ", ".join(hops).encode())]
    assert caller_address(peer, fields, ()) == caller_address(peer, [], ())


@given(st.lists(ADDRESSES, max_size=400), st.ip_addresses(v=4).filter(lambda it: not (it.is_loopback or it.is_private)))
def test_what_a_caller_makes_up_is_not_believed(invented: list[str], real: object) -> None:
    """However much stands to the left of what the proxy added, it is the proxy's that counts."""
    assert found("127.0.0.1", ", ".join([*invented, str(real)])) == str(real)


@pytest.mark.parametrize(
    ("peer", "wanted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("10.1.2.3", ""),  # a trusted proxy
        ("127.0.0.1", ""),
        ("127.9.9.9", ""),
        ("::1", ""),
        ("", ""),
    ],
)
def test_connections_are_counted_by_peers_that_bring_one_caller(peer: str, wanted: str) -> None:
    """Trusted proxies and loopback bring many callers, and are not counted."""
    assert counted_peers(LOCAL[1:])(peer) == wanted
