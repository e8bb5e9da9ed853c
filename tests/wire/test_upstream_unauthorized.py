"""fal refuses the gateway's own credential: the operator hears of it, and no caller takes its own key for wrong."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import http_response, message
from tests.harness.origin import answering
from tests.harness.waiting import until
from tests.wire.stage import assert_problem

if TYPE_CHECKING:
    from tests.harness.origin import OriginConnection
    from tests.harness.scene import Scene

SENTENCE: Final = b'{"detail": "Cannot access application: No user found for Key ID and Secret"}'
REFUSED: Final = http_response(SENTENCE, 401)
PAID: Final = {
    "small": {"body": b"{}"},
    "streamed": {"body": b'"' + b"x" * 200_000 + b'"'},
    "in chunks": {"body": b"{}", "in_chunks": True},
    "submit": {"target": "https://queue.fal.run/fal-ai/flux"},
}


@pytest.mark.parametrize("parts", PAID.values(), ids=list(PAID))
def test_a_paid_request_is_500_and_released(scene: Scene, parts: dict[str, object]) -> None:
    """The caller's connection goes on; the log has it as an error, the metrics as fal's refusal; nothing is charged."""
    scene.play(answering(REFUSED))
    before = scene.gateway.metrics()
    with scene.connect() as client:
        answer = client.ask(scene.request(**parts))
        scene.play(answering())
        assert client.ask(scene.request()).status == 200
    assert_problem(answer, 500, "upstream_unauthorized")
    assert SENTENCE not in answer.body
    refused, _ = scene.settled(2)
    assert (refused["level"], refused["outcome"]) == ("error", "origin_failed")
    assert refused["error_type"] == "upstream_unauthorized"
    assert float(refused["cost_usd"]) == 0
    counted = scene.gateway.metrics().value("upstream_refusals_total", reason="credential_rejected")
    assert counted - before.value("upstream_refusals_total", reason="credential_rejected") == 1


def test_a_free_call_is_500_too(scene: Scene) -> None:
    """A poll with a wrong credential is no verdict on the caller's key either."""
    scene.play(answering(REFUSED))
    assert_problem(scene.ask(scene.poll()), 500, "upstream_unauthorized")
    (event,) = scene.settled()
    assert (event["level"], event["class"]) == ("error", "free")


def test_a_401_that_asks_for_events_or_never_ends_is_500_at_once(scene: Scene) -> None:
    """The head is enough: nothing of what is behind it is waited for."""
    ended = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(message("HTTP/1.1 401 No", [("Content-Type", "text/event-stream")], b"data: no\n\n"))
        connection.wait_for_leaving()
        ended.set()

    scene.play(script)
    assert_problem(scene.ask(scene.request()), 500, "upstream_unauthorized")
    assert ended.wait(10)
    scene.settled()


def test_a_caller_that_has_left_is_counted_once(scene: Scene) -> None:
    """The answer of a paid run is read on for its cost; a 401 costs nothing."""
    may_answer = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        assert may_answer.wait(10)
        connection.send(REFUSED)

    scene.play(script)
    with scene.connect() as client:
        client.send(scene.request())
        until(lambda: scene.origin.executions, "the request at the origin")
        until(lambda: scene.gateway.metrics().value("client_connections") == 1, "the caller")
        client.reset()
    until(lambda: scene.gateway.metrics().value("client_connections") == 0, "the caller's end")
    may_answer.set()
    (event,) = scene.settled()
    assert (event["outcome"], event["level"], float(event["cost_usd"])) == ("client_gone", "error", 0)


def test_a_lock_of_the_account_passes_unchanged(scene: Scene) -> None:
    """403 says what is wrong with the account, and who called may read it."""
    locked = http_response(b'{"detail": "User is locked. Reason: Exhausted balance."}', 403)
    scene.play(answering(locked))
    answer = scene.ask(scene.request())
    assert (answer.status, answer.json()) == (403, {"detail": "User is locked. Reason: Exhausted balance."})
    (event,) = scene.settled()
    assert (event["outcome"], event["level"]) == ("ok", "info")
