"""The stage of the wire tests: a gateway with one of everything in its policy, an origin that says what it is told."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.harness.client import RawClient, Response
from tests.harness.messages import http_response
from tests.harness.policy import GatewayKey, policy_text
from tests.harness.ports import fresh_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.gateway import Gateway
    from tests.harness.origin import OriginConnection, Received, ScriptedOrigin

PAGE: Final = "https://app.example"
MOST_BYTES: Final = 2 * 1024 * 1024
NARROW_MOST_BYTES: Final = 1000
PROBLEM_NAMES: Final = frozenset({"detail", "message", "error_type", "request_id"})
ENDS_WITH_CLOSE: Final = b"Connection: close\r\n"


@dataclass(frozen=True, slots=True)
class Keys:
    """The gateway keys on the stage: `old` and `new` are two secrets of one key, `expired` was valid in 2020."""

    full: GatewayKey
    narrow: GatewayKey
    expired: GatewayKey
    old: GatewayKey
    new: GatewayKey


def make_keys() -> Keys:
    """Return new keys."""
    old, new = GatewayKey(id="rotating"), GatewayKey(id="rotating")
    return Keys(
        full=GatewayKey(id="full"),
        narrow=GatewayKey(
            id="narrow",
            team="research",
            entry={"allowed_endpoints": ["fal-ai/flux/**"], "max_body_bytes": NARROW_MOST_BYTES},
        ),
        expired=GatewayKey(id="expired", entry={"expires_at": "2020-01-01T00:00:00Z"}),
        old=GatewayKey(id="rotating", secret=old.secret, entry={"digests": [old.digest, new.digest]}),
        new=new,
    )


def stage_policy(keys: Keys) -> str:
    """Return a policy in which each rule of the data listener has something to bite on."""
    return policy_text(
        keys.full,
        keys.narrow,
        keys.expired,
        keys.old,
        clients={"cors_allowed_origins": [PAGE]},
        targets={"binary_url_patterns": ["fal.run/binary/**"]},
    )


class Stage:
    """Gateway and origin. `answer` is what the origin says to each whole request; empty: it closes without a word."""

    def __init__(self, gateway: Gateway, origin: ScriptedOrigin, *, keys: Keys, script: Script) -> None:
        self.gateway = gateway
        self.origin = origin
        self.keys = keys
        self._script = script

    def answer(self, answer: bytes | Callable[[Received], bytes]) -> None:
        """Set what the origin says from now on; it closes behind an answer that says `Connection: close`."""
        self._script.answer = answer

    def reset(self) -> None:
        """Let the origin say 200 again."""
        self._script.answer = http_response()

    def ask(self, request: bytes, *, method: str = "POST") -> Response:
        """Send a request on a connection and from an address of its own; return the whole answer."""
        with RawClient(self.gateway.port, address=fresh_address()) as client:
            client.send(request)
            return client.read_response(method)

    def forwarded(self, request: bytes, *, method: str = "POST") -> tuple[Response, Received]:
        """Send a request; return the answer, and the one request that the origin saw whole."""
        before = len(self.origin.requests)
        response = self.ask(request, method=method)
        (received,) = [seen for seen in self.origin.requests[before:] if seen.whole]
        return response, received

    def event_of(self, response: Response) -> dict[str, Any]:
        """Wait for the log event of the request that got this answer; return it."""
        request_id = response.field("x-gateway-request-id")
        return self.gateway.wait_for_event("exchange", lambda event: event["request_id"] == request_id)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Check that the origin sees neither a connection nor a request while the block runs."""
        before = (self.origin.connections, len(self.origin.requests))
        yield
        assert (self.origin.connections, len(self.origin.requests)) == before


class Script:
    """The origin's side of the stage."""

    def __init__(self) -> None:
        self.answer: bytes | Callable[[Received], bytes] = http_response()

    def __call__(self, connection: OriginConnection) -> None:
        """Answer whole requests as told."""
        while (request := connection.read_request()) is not None:
            answer = self.answer(request) if callable(self.answer) else self.answer
            connection.send(answer)
            if not answer or ENDS_WITH_CLOSE in answer:
                return


def assert_problem(response: Response, status: int, error_type: str) -> None:
    """Check an answer of the gateway's own to the letter: status, type, fields, body."""
    assert (response.status, response.field("x-fal-error-type")) == (status, error_type), response
    problem = response.json()
    assert problem.keys() == PROBLEM_NAMES
    assert all(isinstance(value, str) and value for value in problem.values())
    assert problem["error_type"] == error_type
    assert problem["detail"] == problem["message"]
    assert problem["request_id"] == response.field("x-gateway-request-id")
    assert response.field("content-type") == "application/json"
    assert response.framing == "length"
    assert (status == 401) == (response.field("www-authenticate") is not None)
    assert (status == 405) == (response.field("allow") is not None)
