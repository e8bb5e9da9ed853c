"""The URL of the shared state: what it may say, and that what is wrong is told without showing it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from gateway.state.redis.address import RedisAddress, parse_redis_url

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", RedisAddress(host="h")),
        ("valkey://h:6380/2", RedisAddress(host="h", port=6380, db=2)),
        ("redis://h/?db=4", RedisAddress(host="h", db=4)),
        ("redis://:p%40%2F%25@h", RedisAddress(host="h", password="p@/%")),  # noqa: S106 (made up)
        ("redis://user:p@[::1]:7", RedisAddress(host="::1", port=7, username="user", password="p")),  # noqa: S106
        ("rediss://h", RedisAddress(host="h", tls=True)),
        ("valkeys://h:1/0", RedisAddress(host="h", port=1, tls=True)),
        ("unix:///run/re%20dis.sock", RedisAddress(path="/run/re dis.sock")),
        ("unix://u:p@/run/x?db=1", RedisAddress(path="/run/x", db=1, username="u", password="p")),  # noqa: S106
    ],
)
def test_a_url_names_one_server(url: str, address: RedisAddress) -> None:
    """Every part is read, and percent-encoding undone."""
    assert parse_redis_url(url) == address


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "should begin with redis://"),
        ("http://canary@h", "should begin with redis://"),
        ("redis://", "name a place"),
        ("redis://:canary@", "name a place"),
        ("redis://:can/ary@h", "port"),
        ("redis://:can?ary@h", "port"),
        ("redis://:can#ary@h", "port"),
        ("redis://h/canary", "number"),
        ("redis://h/1?db=2", "twice"),
        ("redis://h?canary=1", "only db and ssl_ca_certs"),
        ("redis://h?canary", "only db and ssl_ca_certs"),
        ("redis://h?db=1&db=2", "each once"),
        ("redis://h#canary", "fragment"),
        ("redis://h:0", "port"),
        ("redis://h:canary", "port"),
        ("redis://h:70000", "port"),
        ("redis://[canary", "not a URL"),
        ("redis://h?ssl_ca_certs=/canary", "rediss://"),
        ("rediss://h?ssl_ca_certs=/no/canary.pem", "cannot be read"),
        ("unix://canary/x", "unix:///path"),
        ("unix://", "unix:///path"),
        ("redis://h/²", "number"),
    ],
)
def test_what_is_wrong_is_told_and_not_shown(url: str, reason: str) -> None:
    """A reason in words for each, and nothing of the URL in it."""
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        parse_redis_url(url)
    assert "canary" not in str(caught.value)
    assert "ary" not in str(caught.value).replace("ssl_ca_certs", "")


def test_a_bundle_without_a_certificate_is_told(tmp_path: Path) -> None:
    """It is loaded at start, so that not every connection fails later."""
    file = tmp_path / "empty.pem"
    file.write_text("nothing")
    with pytest.raises(ValueError, match="no certificate"):
        parse_redis_url(f"rediss://h?ssl_ca_certs={file}")


def test_an_address_shows_no_secret() -> None:
    """Neither in a log nor in a repr is there a password or a user."""
    address = parse_redis_url("rediss://someone:canary@h:7/3")
    assert address.shown == "rediss://h:7/3"
    assert "canary" not in repr(address)
    assert parse_redis_url("unix://u:canary@/run/x?db=1").shown == "unix:///run/x?db=1"
    assert parse_redis_url("redis://[::1]").shown == "redis://[::1]:6379/0"
