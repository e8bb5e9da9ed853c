"""Gateway keys on the wire: the three ways to send one, everything that is refused, rotation, anonymous clients."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from gateway.policy.credential import new_key_text
from tests.harness.client import RawClient
from tests.harness.messages import proxy_head, proxy_request
from tests.harness.policy import GatewayKey, policy_text
from tests.wire.stage import Stage, assert_problem

if TYPE_CHECKING:
    from tests.harness.gateway import StartGateway
    from tests.harness.origin import StartOrigin

WAYS = [
    ("Authorization", "Key {}"),
    ("Authorization", "Bearer {}"),
    ("authorization", "KEY {}"),
    ("Authorization", "bearer   {}"),
    ("X-Gateway-Key", "{}"),
    ("x-gateway-key", "{}"),
]
NO_WAYS = [
    ("Authorization", "{}"),
    ("Authorization", "Basic {}"),
    ("Authorization", "Token {}"),
    ("Authorization", "Key"),
    ("Authorization", ""),
    ("Authorization", "Key {0} {0}"),
    ("Authorization", "Key {},"),
    ("Authorization", 'Key "{}"'),
    ("X-Gateway-Key", ""),
    ("X-Gateway-Key", "Key {}"),
    ("X-Gateway-Key", "{0},{0}"),
]
TWICE = [
    [("Authorization", "Key {}"), ("X-Gateway-Key", "{}")],
    [("Authorization", "Key {}"), ("Authorization", "Key {}")],
    [("Authorization", "Key {}"), ("Authorization", "Basic eDp5")],
    [("X-Gateway-Key", "{}"), ("X-Gateway-Key", "nobody")],
    [("X-Gateway-Key", "{}"), ("Authorization", "")],
]
GARBAGE = [
    b"\xff\xfe\xfd",
    b"\xc3\x28",
    "ключ-\N{SNOWMAN}".encode(),
    b"a" * 513,
    b"a" * 8000,
    b"gwk_",
    b"gwk_aaaaaaaa_" + b"a" * 38,
    b"\t \t",
    b"%00%ff",
    b'{}[]()<>@;:\\"/?=',
]


def filled(fields: list[tuple[str, str]], secret: str) -> list[tuple[str, str]]:
    """Return fields with the secret in its places."""
    return [(name, value.format(secret)) for name, value in fields]


@pytest.mark.parametrize("way", WAYS)
def test_a_key_comes_in_three_ways(stage: Stage, way: tuple[str, str]) -> None:
    """`Authorization: Key`, `Authorization: Bearer` and `X-Gateway-Key` serve; scheme and name in any case."""
    response, _ = stage.forwarded(proxy_request(fields=filled([way], stage.keys.full.secret)))
    assert response.status == 200


@pytest.mark.parametrize("way", NO_WAYS)
def test_no_other_way_serves(stage: Stage, way: tuple[str, str]) -> None:
    """Other schemes, and a valid key in another shape, are 401 with a challenge."""
    with stage.untouched():
        response = stage.ask(proxy_request(fields=filled([way], stage.keys.full.secret)))
    assert_problem(response, 401, "credential_invalid")
    assert (response.field("www-authenticate") or "").startswith("Key ")


@pytest.mark.parametrize("query", ["key={}", "api_key={}", "authorization=Key%20{}", "x-gateway-key={}"])
def test_a_key_in_the_query_is_none(stage: Stage, query: str) -> None:
    """A key is never read out of a query, the gateway's or the target's: queries end up in logs."""
    query = query.format(stage.keys.full.secret)
    with stage.untouched():
        here = stage.ask(proxy_request(path=f"/api/fal/proxy?{query}"))
        there = stage.ask(proxy_request(f"https://fal.run/a/b?{query}"))
    assert_problem(here, 401, "credential_missing")
    assert_problem(there, 401, "credential_missing")


@pytest.mark.parametrize("fields", TWICE)
def test_two_credentials_at_once_are_none(stage: Stage, fields: list[tuple[str, str]]) -> None:
    """Which of two credentials counts is nobody's to guess, even where one or both are valid."""
    with stage.untouched():
        response = stage.ask(proxy_request(fields=filled(fields, stage.keys.full.secret)))
    assert_problem(response, 401, "credential_invalid")


@pytest.mark.parametrize("name", [b"Authorization: Key ", b"Authorization: Bearer ", b"X-Gateway-Key: "])
@pytest.mark.parametrize("garbage", GARBAGE, ids=ascii)
def test_garbage_of_any_bytes_is_401(stage: Stage, garbage: bytes, name: bytes) -> None:
    """No bytes that can be a field's value make anything but a 401."""
    request = proxy_request().replace(b"\r\n", b"\r\n" + name + garbage + b"\r\n", 1)
    with stage.untouched():
        assert_problem(stage.ask(request), 401, "credential_invalid")


def test_unknown_mistyped_and_expired_keys_answer_alike(stage: Stage) -> None:
    """Nothing in the answer tells whether a key ever was one."""
    genuine = new_key_text()
    mistyped = genuine[:-1] + ("A" if genuine[-1] != "A" else "B")
    texts = ("nobody", genuine, mistyped, stage.keys.expired.secret, stage.keys.full.digest)
    answers = [stage.ask(proxy_request(key=text)) for text in texts]
    bodies = {answer.body.replace(answer.json()["request_id"].encode(), b"") for answer in answers}
    own = (b"x-gateway-request-id", b"date")
    heads = {tuple(field for field in answer.head.fields if field[0] not in own) for answer in answers}
    assert (len(bodies), len(heads)) == (1, 1)
    assert answers[0].status == 401


def test_both_secrets_of_a_rotation_serve(stage: Stage) -> None:
    """Two digests under one key let in two secrets, counted as the one key."""
    for key in (stage.keys.old, stage.keys.new):
        response, _ = stage.forwarded(proxy_request(key=key))
        assert (response.status, stage.event_of(response)["key"]) == (200, "rotating")


def test_a_key_serves_until_it_expires(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    """A key with an end in the future serves, beside one whose end was a second ago."""
    coming = GatewayKey(id="coming", entry={"expires_at": "2999-01-01T00:00:00Z"})
    gone = GatewayKey(id="gone", entry={"expires_at": "2020-01-01T00:00:00+02:00"})
    gateway = start_gateway(start_origin(), policy=policy_text(coming, gone))
    with RawClient(gateway.port) as client:
        assert client.ask(proxy_request(key=coming)).status == 200
        assert_problem(client.ask(proxy_request(key=gone)), 401, "credential_invalid")


def test_anonymous_clients_pass_where_the_policy_says_so(
    start_gateway: StartGateway, start_origin: StartOrigin, key: GatewayKey
) -> None:
    """Without a credential a client is `anonymous`; a wrong one is still refused, for somebody meant to be known."""
    origin = start_origin()
    gateway = start_gateway(origin, policy=policy_text(key, clients={"allow_unauthorized_requests": True}))
    with RawClient(gateway.port) as client:
        assert client.ask(proxy_request()).status == 200
        assert client.ask(proxy_request(key=key)).status == 200
        assert_problem(client.ask(proxy_request(key="nobody")), 401, "credential_invalid")
    event = gateway.wait_for_event("exchange", lambda event: event["status"] == 401)
    assert event["key"] == "unknown"
    assert [event["key"] for event in gateway.events("exchange")[:2]] == ["anonymous", key.id]


def test_a_key_that_was_made_by_the_command_serves(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    """A key of the gateway's own grammar is known by the digest of its whole text."""
    made = GatewayKey(secret=new_key_text())
    assert made.digest == f"sha256:{hashlib.sha256(made.secret.encode()).hexdigest()}"
    gateway = start_gateway(start_origin(), policy=policy_text(made))
    with RawClient(gateway.port) as client:
        assert client.ask(proxy_request(key=made)).status == 200


def test_a_credential_that_connection_names_is_read_all_the_same(stage: Stage) -> None:
    """Naming the key's field in `Connection` takes it off the way to the origin, where it never goes, and no more."""
    head = proxy_head(key=stage.keys.full, fields=[("Connection", "authorization"), ("Content-Length", "0")])
    response, received = stage.forwarded(head)
    assert response.status == 200
    assert len(received.head.values(b"authorization")) == 1
