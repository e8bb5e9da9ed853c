"""What the real client does when an origin dies in a paid call: never does it buy a second time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.clients.driver import NodeClient
from tests.harness.messages import http_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.gateway import StartGateway
    from tests.harness.origin import OriginConnection, StartOrigin
    from tests.harness.policy import GatewayKey

ENDPOINT: Final = "fal-ai/flux/dev"
OPTIONS: Final = {"input": {"prompt": "a cat"}}
ANSWER: Final = http_response(b'{"images":[],"request_id":"r","pad":"' + b"x" * 5000 + b'"}')
CHUNKED_ANSWER: Final = http_response(b'{"images":[],"pad":"' + b"x" * 5000 + b'"}', in_chunks=True)


def dying(said: bytes, *, way: str) -> Callable[[OriginConnection], None]:
    """Return a script that takes a request whole, says this much, and dies by `reset` or by `close`."""

    def script(connection: OriginConnection) -> None:
        if connection.read_request() is not None:
            connection.send(said)
            getattr(connection, way)()

    return script


@pytest.mark.parametrize("call", ["run", "submit"])
@pytest.mark.parametrize("way", ["reset", "close"])
@pytest.mark.parametrize(
    "said",
    [b"", ANSWER[:20], ANSWER[:-1], CHUNKED_ANSWER[:-1]],
    ids=["before the head", "in the head", "in the content", "before the last chunk"],
)
def test_a_paid_call_that_fal_received_whole_is_executed_once(  # noqa: PLR0913 - a fixture each
    start_gateway: StartGateway,
    start_origin: StartOrigin,
    key: GatewayKey,
    call: str,
    way: str,
    said: bytes,
) -> None:
    """The origin took the request and died before its answer was whole: the user sees a 500, after one attempt."""
    origin = start_origin(dying(said, way=way))
    client = NodeClient(key.secret, proxy=start_gateway(origin).url)
    outcome = client.call(call, ENDPOINT, options=OPTIONS)
    assert outcome.error is not None
    assert (outcome.error["name"], outcome.error["status"], outcome.statuses) == ("ApiError", 500, [500])
    assert outcome.error["body"]["error_type"] == "origin_failed"
    assert len(origin.executions) == 1


def test_a_paid_call_that_fal_did_not_receive_is_not_executed(
    start_gateway: StartGateway,
    start_origin: StartOrigin,
    key: GatewayKey,
) -> None:
    """The origin dies before it has read the request: the user can read an error, and nothing was bought."""
    origin = start_origin(lambda connection: connection.reset())
    client = NodeClient(key.secret, proxy=start_gateway(origin).url)
    outcome = client.call("run", ENDPOINT, options=OPTIONS)
    assert outcome.error is not None
    assert outcome.error["name"] == "ApiError"
    assert outcome.error["body"]["request_id"]
    assert origin.executions == []


def test_an_origin_that_leaves_after_its_answer_is_not_noticed(
    start_gateway: StartGateway,
    start_origin: StartOrigin,
    key: GatewayKey,
) -> None:
    """The origin closes the connection behind each answer without saying so: every call succeeds, executed once."""
    origin = start_origin(dying(ANSWER, way="close"))
    client = NodeClient(key.secret, proxy=start_gateway(origin).url)
    outcomes = [client.call("run", ENDPOINT, options=OPTIONS) for _ in range(3)]
    assert [outcome.statuses for outcome in outcomes] == [[200]] * 3
    assert len(origin.executions) == 3
