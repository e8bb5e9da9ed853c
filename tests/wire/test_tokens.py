"""Realtime tokens: who gets them, for which apps, and for how long. What is sent is what was judged."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.harness.gateway import Gateway
from tests.harness.messages import proxy_request
from tests.harness.origin import ScriptedOrigin, answering
from tests.harness.policy import GatewayKey, policy_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.client import Response

TOKENS: Final = "https://rest.fal.ai/tokens/"
BUDGETS: Final = [{"usd": "5", "period": "month"}]
YEAR: Final = 31_536_000
OTHER_FIELDS: Final = {"Token_Expiration": YEAR, "allowed_apps ": ["*"], "expires_in": YEAR, "x": ["ü", 1.5]}
"""What a lenient reader may take for the two fields, and what it may not: none of it is sent on."""


def key(name: str, team: str = "plain", **entry: Any) -> GatewayKey:  # noqa: ANN401 - any part of a policy file
    """Return a key with these lines in its entry."""
    return GatewayKey(name, team, entry=entry)


PLAIN: Final = key("plain")
BUDGETED: Final = key("budgeted", budgets=BUDGETS)
BY_TEAM: Final = key("by-team", "capped")
TRUSTED: Final = key("trusted", "capped", realtime={"mode": "allow"})
BRIEF: Final = key("brief", budgets=BUDGETS, realtime={"mode": "allow", "max_token_seconds": 10})
NONE: Final = key("none", realtime={"mode": "refuse"})
LONGER: Final = key("longer", "patient", realtime={"max_token_seconds": 600})
PATIENT: Final = key("patient", "patient")
NARROW: Final = key("narrow", allowed_endpoints=["fal-ai/flux/**"])
KEYS: Final = (PLAIN, BUDGETED, BY_TEAM, TRUSTED, BRIEF, NONE, LONGER, PATIENT, NARROW)
TEAMS: Final = [
    {"id": "plain"},
    {"id": "capped", "budgets": BUDGETS},
    {"id": "patient", "realtime": {"max_token_seconds": 300}},
]


class Place:
    """A gateway, and the origin behind it."""

    def __init__(self, gateway: Gateway, origin: ScriptedOrigin) -> None:
        self.gateway, self.origin = gateway, origin

    def ask(self, who: GatewayKey, content: Any, *, target: str = TOKENS, **parts: Any) -> Response:  # noqa: ANN401
        """Ask for a token with these bytes, or this document."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        with self.gateway.connect() as client:
            return client.ask(proxy_request(target, key=who, body=body, **parts))

    def sent(self, who: GatewayKey, content: Any, **parts: Any) -> Any:  # noqa: ANN401
        """Return the document that fal gets of a request that is granted."""
        before = len(self.origin.requests)
        response = self.ask(who, content, **parts)
        assert response.status == 200, response.body
        (received,) = self.origin.requests[before:]
        return json.loads(received.body)

    def refused(self, who: GatewayKey, content: Any, **parts: Any) -> tuple[int, str | None]:  # noqa: ANN401
        """Return (status, error type) of a request of which nothing is sent."""
        before = len(self.origin.requests)
        response = self.ask(who, content, **parts)
        assert len(self.origin.requests) == before
        return response.status, response.field("x-fal-error-type")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Run a gateway that lets all hosts of fal pass."""
    targets = {"allowed_url_patterns": ["*.fal.run/**", "*.fal.ai/**"]}
    policy = policy_text(*KEYS, teams=TEAMS, targets=targets, realtime={"max_token_seconds": 60})
    with ScriptedOrigin(answering()) as origin:
        base = f"http://127.0.0.1:{origin.port}"
        hosts = ("rest.fal.ai", "rest.alpha.fal.ai", "api.fal.ai", "apps.fal.run")
        env = {"FALGW_ORIGIN_OVERRIDES": ",".join(f"{host}={base}" for host in hosts)}
        with Gateway(tmp_path_factory.mktemp("tokens"), policy=policy, env=env) as gateway:
            yield Place(gateway.wait_ready(), origin)


@pytest.mark.parametrize("who", [BUDGETED, BY_TEAM, NONE], ids=lambda who: who.id)
@pytest.mark.parametrize("target", [TOKENS, TOKENS[:-1], "https://rest.alpha.fal.ai/tokens/"])
def test_no_tokens_for_whom_they_would_pass_a_budget(place: Place, who: GatewayKey, target: str) -> None:
    """Under a budget, the key's or its team's, and where the policy says refuse: 403, nothing sent."""
    asked = {"allowed_apps": ["flux"], "token_expiration": 10}
    assert place.refused(who, asked, target=target) == (403, "realtime_not_budgeted")


@pytest.mark.parametrize(
    ("who", "most"),
    [(PLAIN, 60), (TRUSTED, 60), (BRIEF, 10), (LONGER, 600), (PATIENT, 300)],
    ids=["plain", "trusted", "brief", "longer", "patient"],
)
def test_a_token_lives_no_longer_than_the_nearest_bound(place: Place, who: GatewayKey, most: int) -> None:
    """Key before team before top level, for each of the two fields: lowered, set where it is missing, else kept."""
    for asked, sent in ((YEAR, most), (None, most), (most, most), (7, 7), (float(YEAR), most), (1e30, most)):
        document = place.sent(who, {"allowed_apps": ["flux"], "token_expiration": asked, **OTHER_FIELDS})
        assert document == {"allowed_apps": ["flux"], "token_expiration": sent}
    assert place.sent(who, {"allowed_apps": ["flux"]})["token_expiration"] == most


@pytest.mark.parametrize("target", [TOKENS, TOKENS[:-1], "https://rest.alpha.fal.ai/tokens/"])
def test_every_path_of_tokens_is_judged(place: Place, target: str) -> None:
    """With a slash and without, on either host, in one piece and in chunks."""
    for parts in ({}, {"in_chunks": True}):
        asked = {"allowed_apps": ["flux"], "token_expiration": YEAR}
        assert place.sent(PLAIN, asked, target=target, **parts)["token_expiration"] == 60
        refused = place.refused(NARROW, {"allowed_apps": ["other"]}, target=target, **parts)
        assert refused == (403, "endpoint_not_allowed")


@pytest.mark.parametrize("path", ["tokens/x", "Tokens/", "TOKENS", "tokens;x", "tokens/;x", "tokens%20", "tokens-2/a"])
def test_no_other_path_gives_out_tokens(place: Place, path: str) -> None:
    """Where all of the host may be reached, what may be another spelling is refused."""
    asked = {"allowed_apps": ["flux"]}
    for who in (PLAIN, BUDGETED):
        assert place.refused(who, asked, target=f"https://rest.fal.ai/{path}") == (412, "target_invalid")


@pytest.mark.parametrize(
    "target",
    [
        "rest.fal.ai/v1/tokens/",
        "rest.fal.ai/v1/Tokens",
        "rest.fal.ai/tokens/realtime",
        "rest.fal.ai/auth/token",
        "rest.fal.ai/users/current/api-keys",
        "rest.alpha.fal.ai/v2/tokens;x/",
        "api.fal.ai/v1/keys",
        "api.fal.ai/v1/tokens%20/",
    ],
)
def test_no_host_gives_out_other_credentials(place: Place, target: str) -> None:
    """What opens fal past the gateway, for any app or for longer, is refused wherever it is asked for."""
    for who in (PLAIN, BUDGETED, TRUSTED):
        assert place.refused(who, {"alias": "mine"}, target=f"https://{target}") == (412, "target_invalid")


@pytest.mark.parametrize(
    "target", ["rest.fal.ai/storage/auth/token", "rest.fal.ai/v1/tokenizers", "apps.fal.run/acme/keys/tokens"]
)
def test_a_word_that_means_something_else_passes(place: Place, target: str) -> None:
    """Uploads have tokens of their own, which buy nothing; an application names its paths as it likes."""
    assert place.sent(PLAIN, {"alias": "mine"}, target=f"https://{target}") == {"alias": "mine"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"allowed_apps": ["flux"]',
        b'{"allowed_apps": ["flux"], "token_expiration": 10, "token_expiration": 31536000}',
        b'{"allowed_apps": ["flux"], "token_expiration": "31536000"}',
        b'{"allowed_apps": ["flux"], "token_expiration": 0}',
        b'{"allowed_apps": ["flux"], "token_expiration": -1}',
        b'{"allowed_apps": ["flux"], "token_expiration": true}',
        b'{"allowed_apps": ["flux"], "token_expiration": 1.5}',
        b'{"allowed_apps": ["flux"], "token_expiration": 1e999}',
        b'{"allowed_apps": ["flux"], "token_expiration": [1]}',
        b'{"allowed_apps": "flux"}',
        gzip.compress(b'{"allowed_apps": ["flux"]}', mtime=0),
    ],
)
def test_what_cannot_be_read_in_one_way_is_refused(place: Place, content: bytes) -> None:
    """No budget, no endpoint globs: the content is judged all the same."""
    assert place.refused(PLAIN, content) == (400, "request_invalid")


def test_a_token_request_is_a_plain_post_of_bounded_length(place: Place) -> None:
    """Another method, an encoding or too much content is refused."""
    asked = {"allowed_apps": ["flux"]}
    assert place.refused(PLAIN, asked, method="PUT") == (400, "request_invalid")
    assert place.refused(PLAIN, b"", method="GET") == (400, "request_invalid")
    assert place.refused(PLAIN, asked, fields=[("Content-Encoding", "br")]) == (400, "request_invalid")
    assert place.refused(PLAIN, {**asked, "x": "x" * 65_536}) == (413, "content_too_large")


def test_apps_are_judged_by_the_endpoints_of_the_key(place: Place) -> None:
    """All of them must be allowed."""
    assert place.sent(NARROW, {"allowed_apps": ["flux", "fal-ai/flux"]})["allowed_apps"] == ["flux", "fal-ai/flux"]
    assert place.refused(NARROW, {"allowed_apps": ["flux", "veo"]}) == (403, "endpoint_not_allowed")
