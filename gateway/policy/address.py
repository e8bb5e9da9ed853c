"""Whose address a request comes from: what callers without a key, and those who guess keys, are limited by.

The decision: only the peer of the socket is known for sure. `X-Forwarded-For` is believed where that peer is a trusted
proxy, and then from the right: the first hop that is no trusted proxy is the caller, since everything left of it may
have been made up. An IPv6 caller owns a /64, so all of it counts as one address.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.http.fields import Fields

Network = IPv4Network | IPv6Network

_OWN_PREFIX_BITS: Final = 64
_LONGEST_LIST_BYTES: Final = 4096
_PEERS_KEPT: Final = 4096


def caller_address(peer: str, fields: Fields, trusted: Sequence[Network]) -> str:
    """Return the address that a request is counted by: `192.0.2.7`, or `2001:db8:1:2::/64`.

    `peer` is the socket's. What cannot be read as an address ends the search: the last that could is taken.
    """
    address = _parsed(peer)
    if address is None:
        return peer
    if trusted and _is_trusted(address, trusted):
        for hop in reversed(_forwarded_for(fields)):
            found = _parsed(hop)
            if found is None:
                break
            address = found
            if not _is_trusted(address, trusted):
                break
    return _partition(address)


def counted_peers(trusted: Sequence[Network]) -> Callable[[str], str]:
    """Return a function from the peer of a socket to the address that its connections are counted by.

    It is empty for peers that bring many callers: trusted proxies, and loopback, where proxies beside the gateway are.
    """

    @lru_cache(_PEERS_KEPT)
    def counted(peer: str) -> str:
        address = _parsed(peer)
        if address is None or address.is_loopback or _is_trusted(address, trusted):
            return ""
        return _partition(address)

    return counted


def _forwarded_for(fields: Fields) -> list[str]:
    value = b",".join(value for name, value in fields if name == b"x-forwarded-for")
    return value[-_LONGEST_LIST_BYTES:].decode("latin-1").split(",")


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address, with or without a port or a zone; IPv4 in IPv6 clothes as IPv4."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _is_trusted(address: IPv4Address | IPv6Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _partition(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((address, _OWN_PREFIX_BITS), strict=False))
