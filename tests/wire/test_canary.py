"""Two canaries: fal's credential leaves the gateway in one field, towards the origin; a gateway key leaves it nowhere.

Every byte is searched: what clients get, the log, the ops pages, the command lines, and what the origin gets.
"""

from __future__ import annotations

import base64
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.client import RawClient
from tests.harness.gateway import FAL_KEY, Gateway
from tests.harness.messages import http_response, message, proxy_head, proxy_request
from tests.harness.origin import ScriptedOrigin
from tests.harness.policy import GatewayKey, policy_text
from tests.harness.process import GatewayProcess
from tests.harness.waiting import until
from tests.wire.stage import PAGE, Script

if TYPE_CHECKING:
    from collections.abc import Iterator


SECRET: Final = FAL_KEY.partition(":")[2]
TEAM_SECRETS: Final = ("team-canary-before-4d1e", "team-canary-after-90b6", "team canary unfit-c2f8")
TEAM_KEYS: Final = tuple(f"team-key-id:{secret}" for secret in TEAM_SECRETS)
FAL_CANARIES: Final = (
    FAL_KEY.encode(),
    SECRET.encode(),
    base64.b64encode(FAL_KEY.encode()),
    *(secret.encode() for secret in TEAM_SECRETS),
)
QUERY: Final = "query-canary-51c2"
TARGET: Final = "target-canary-08bd"
CONTENT: Final = "content-canary-9e0d"
FIELD: Final = "field-canary-77aa"
WRONG_KEY: Final = "wrong-key-canary-3b1f"
FREE: Final = "https://queue.fal.run/fal-ai/flux/requests/764cabcf/status"


class Aviary:
    """One gateway that has been through everything, and every byte that its clients got from it."""

    def __init__(
        self, gateway: Gateway, origin: ScriptedOrigin, *, script: Script, keys: tuple[GatewayKey, GatewayKey]
    ) -> None:
        key, self.team_key = keys
        self.team_file = gateway.policy_file.parent / "team-key"
        self.gateway = gateway
        self.origin = origin
        self.key = key
        self.script = script
        self.statuses: list[int] = []
        self.heard = b""

    def ask(self, request: bytes) -> bytes:
        """Send a request that ends its connection, and keep all that comes back, however it ends."""
        request = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
        with RawClient(self.gateway.port) as client:
            client.send(request)
            heard = b"".join(client.reader.rest())
        self.heard += heard
        self.statuses.append(int(heard[9:12]))
        return heard

    def go_through_everything(self) -> None:
        """Ask for an answer of every kind that is the gateway's own, or the origin's and no echo."""
        key, fields = self.key, [("Origin", PAGE), ("x-fal-tags", f"a={FIELD}"), ("Cookie", f"a={FIELD}")]
        body = json.dumps({"prompt": CONTENT}).encode()
        target = f"https://fal.run/fal-ai/flux?prompt={QUERY}"
        path = f"/api/fal/proxy?x={QUERY}"
        good = proxy_request(target, key=key, body=body, fields=fields, path=path)
        for request in (
            good,
            proxy_request(target, key=None, body=body, fields=fields, path=path),
            proxy_request(target, key=WRONG_KEY, body=body, fields=fields, path=path),
            proxy_request(target, key=key, body=body, fields=[("X-Gateway-Key", key.secret)], path=path),
            proxy_request(None, key=key, body=body, fields=fields),
            proxy_request(f"https://user:{TARGET}@fal.run/a", key=key, body=body),
            proxy_request(f"https://evil.example/{TARGET}?{TARGET}", key=key, body=body),
            proxy_request(target, key=key, body=body, content_type="text/plain"),
            proxy_request(target, key=key, method="PATCH", fields=fields),
            proxy_request(target, key=key, method="BREW", fields=fields),
            proxy_request("https://fal.run/other", key=key, body=body),
            proxy_request(target, key=key, body=b"x" * 5000),
            proxy_request(target, key=key, method="OPTIONS", fields=fields),
            proxy_request(target, key=key, path="/metrics"),
            proxy_head(target, key=key, fields=[("X-A", "a" * 17_000)]),
            proxy_head(target, key=key, fields=[("Content-Length", "x")]),
            proxy_request(target, key=key, fields=[("X-Fal-Target-Url", target)]),
        ):
            self.ask(request)
        self._fail(good)
        self._rotate()

    def _rotate(self) -> None:
        """Let a team's credential change in its file, then go bad, and let the policy go bad with it."""
        gateway, team_key = self.gateway, self.team_key
        self.script.answer = http_response()
        self.ask(proxy_request(key=team_key))
        self.team_file.write_text(TEAM_KEYS[1], encoding="utf-8")
        gateway.wait_for_event("credential_reloaded")
        until(lambda: gateway.ask_ops("/readyz").json()["policy_generation"] == 2, "the new credential in force")
        self.ask(proxy_request(key=team_key))
        self.team_file.write_text(TEAM_KEYS[2], encoding="utf-8")
        gateway.wait_for_event("credential_reload_failed")
        gateway.process.signal(signal.SIGHUP)
        gateway.wait_for_event("policy_reload_failed")
        self.ask(proxy_request(key=team_key))

    def _fail(self, good: bytes) -> None:
        """Let the origin refuse, redirect, break off and talk nonsense."""
        free = proxy_request(FREE, key=self.key, method="GET")
        for answer in (
            http_response(b'{"detail": "nope"}', 401),
            http_response(b"", 302, fields=[("Location", f"https://fal.run/?{QUERY}")]),
            http_response(b"", 500),
            b"",
            b"garbage\r\n\r\n",
            message("HTTP/1.1 999 Odd", []),
        ):
            self.script.answer = answer
            self.ask(good)
            self.ask(free)


@pytest.fixture(scope="module")
def aviary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aviary]:
    """Run a gateway, take it through everything, and wait until all of it is in the log."""
    script = Script()
    key = GatewayKey(entry={"allowed_endpoints": ["fal-ai/**"], "max_body_bytes": 4000})
    team_key = GatewayKey(id="own", team="own")
    folder = tmp_path_factory.mktemp("aviary")
    team_file = folder / "team-key"
    team_file.write_text(TEAM_KEYS[0], encoding="utf-8")
    teams = [{"id": key.team}, {"id": "own", "fal_key_file": str(team_file)}]
    policy = policy_text(key, team_key, teams=teams, clients={"cors_allowed_origins": [PAGE]})
    with ScriptedOrigin(script) as origin:
        env = {"FALGW_ORIGIN_OVERRIDES": origin.overrides}
        with Gateway(folder, policy=policy, env=env) as gateway:
            birds = Aviary(gateway.wait_ready(), origin, script=script, keys=(key, team_key))
            birds.go_through_everything()
            script.answer = http_response(fields=[("x-fal-request-id", "the-last-one")])
            birds.ask(proxy_request(key=key))
            gateway.wait_for_event("exchange", lambda event: event["fal_request_id"] == "the-last-one")
            yield birds


def test_everything_was_gone_through(aviary: Aviary) -> None:
    """The search below has all kinds of answers to search."""
    assert set(aviary.statuses) >= {200, 204, 302, 400, 401, 403, 404, 405, 412, 413, 415, 431, 500, 502}


def test_fals_credential_reaches_no_client(aviary: Aviary) -> None:
    """Not one byte to a client holds the credential, plain or in base64."""
    assert not [canary for canary in FAL_CANARIES if canary in aviary.heard]


def test_a_gateway_key_is_not_told_back(aviary: Aviary) -> None:
    """No answer repeats a key, right or wrong, nor a target that was refused: it may hold a secret."""
    assert aviary.key.secret.encode() not in aviary.heard
    assert WRONG_KEY.encode() not in aviary.heard
    assert TARGET.encode() not in aviary.heard


@pytest.mark.parametrize(
    "word",
    [
        *(canary.decode() for canary in FAL_CANARIES),
        "key",
        QUERY,
        TARGET,
        CONTENT,
        FIELD,
        WRONG_KEY,
        "gateway.test",
        PAGE,
    ],
)
def test_the_log_holds_no_secret_and_no_content(aviary: Aviary, word: str) -> None:
    """Credentials, keys, queries, contents and the clients' field values stay out of all that the processes write."""
    written = aviary.gateway.process.stderr() + aviary.gateway.process.stdout()
    assert '"event":"exchange"' in written
    assert (aviary.key.secret if word == "key" else word) not in written


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/livez", "/", "/debug"])
def test_the_ops_pages_hold_no_secret(aviary: Aviary, path: str) -> None:
    """Nothing of it is on the ops listener either."""
    text = aviary.gateway.ask_ops(path).text
    secrets = [*(canary.decode() for canary in FAL_CANARIES), aviary.key.secret, aviary.key.digest[7:]]
    assert not [word for word in (*secrets, QUERY, TARGET, CONTENT, FIELD, WRONG_KEY) if word in text]


def test_no_command_line_holds_a_secret(aviary: Aviary) -> None:
    """Whoever may list processes learns no credential: none of the gateway's has one among its arguments."""
    family = aviary.gateway.process.family()
    lines = [Path(f"/proc/{member.pid}/cmdline").read_bytes() for member in family]
    assert len(lines) >= 3
    assert all(lines)
    for line in lines:
        assert not [canary for canary in (*FAL_CANARIES, aviary.key.secret.encode()) if canary in line]


def test_the_gateway_key_never_reaches_the_origin(aviary: Aviary) -> None:
    """The origin got fal's credential, once in each request, and no gateway key in any place."""
    assert len(aviary.origin.requests) >= 10
    for received in aviary.origin.requests:
        everything = (
            received.head.start + b"\n".join(b"%b: %b" % field for field in received.head.fields) + received.body
        )
        assert aviary.key.secret.encode() not in everything
        assert aviary.team_key.secret.encode() not in everything
        assert WRONG_KEY.encode() not in everything
        (authorization,) = received.head.values(b"authorization")
        assert authorization in {b"Key " + key.encode() for key in (FAL_KEY, *TEAM_KEYS[:2])}
        assert everything.count(authorization.rpartition(b":")[2]) == 1


def test_a_teams_credential_goes_with_its_own_requests_alone(aviary: Aviary) -> None:
    """Old, then new, then the new one still when its file has gone bad; with no other team's request."""
    seen = [received.head.values(b"authorization")[0].decode() for received in aviary.origin.requests]
    assert [value for value in seen if value != f"Key {FAL_KEY}"] == [
        f"Key {key}" for key in (TEAM_KEYS[0], TEAM_KEYS[1], TEAM_KEYS[1])
    ]


@pytest.mark.parametrize("key", [FAL_KEY, f"{SECRET} {SECRET}", f"{SECRET}\x7f"])
def test_a_refusal_to_start_does_not_show_the_credential(tmp_path: Path, key: str) -> None:
    """Settings that are wrong are named, the credential among them, and its value is not."""
    env = {"FAL_KEY": key, "FALGW_ORIGIN_OVERRIDES": "nonsense", "FALGW_PORT": "http"}
    process = GatewayProcess(["serve"], folder=tmp_path, env=env)
    assert process.wait(10) == 78
    assert "FALGW_ORIGIN_OVERRIDES" in process.stderr()
    assert SECRET not in process.stderr() + process.stdout()
