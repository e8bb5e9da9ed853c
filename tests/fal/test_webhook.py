"""Warnings by webhook: signed as the page says, tried again where that helps, and never in anybody's way."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway.money.webhook import QUEUE_MOST, Persistence, Webhook
from gateway.money.webhook_signature import BudgetWarning, content_of, sign
from gateway.platform.backoff import Backoff
from tests.fal.stand import named
from tests.harness.messages import http_response
from tests.harness.origin import answering, in_turn
from tests.harness.ports import LOOPBACK, refused_port
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.origin import OriginConnection, Received, StartOrigin

SECRET: Final = "canary-of-the-webhook"  # noqa: S105 - nobody's
PAGE: Final = (Path(__file__).parents[2] / "docs" / "budgets.md").read_text(encoding="utf-8")
QUICK: Final = Persistence(try_seconds=60, backoff=Backoff(0.001, 0.01), answer_seconds=20)
SHORT: Final = Persistence(try_seconds=0.2, backoff=Backoff(0.01, 0.05))
WARNING: Final = BudgetWarning(
    scope="team",
    id="design",
    period="month",
    period_start=1_793_491_200,
    share=0.8,
    limit_ns=500 * 10**9,
    spent_ns=398_750_000_000,
    reserved_ns=1_500_000_000,
    at=1_795_341_600,
)


@pytest.fixture
def open_webhook() -> Iterator[Callable[..., Webhook]]:
    """Return `open(port, …)`: a webhook to a port of loopback, closed after the test."""
    opened: list[Webhook] = []

    def start(port: int, *, persistence: Persistence = QUICK) -> Webhook:
        opened.append(Webhook(f"http://{LOOPBACK}:{port}/a-secret-path?q", SECRET, persistence=persistence))
        return opened[-1]

    yield start
    for webhook in opened:
        webhook.close(0.1)


def is_genuine(*arguments: object, **options: object) -> bool:
    """Run the receiver's check as docs/budgets.md shows it."""
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    room: dict[str, Any] = {}
    exec(example, room)  # noqa: S102 - the page's example is what is under test
    return bool(room["is_genuine"](*arguments, **options))


def signature(request: Received) -> str:
    """Return the field of the signature."""
    return dict(request.head.fields)[b"x-gateway-signature"].decode()


def test_a_receiver_that_follows_the_page_takes_it(
    start_origin: StartOrigin, open_webhook: Callable[..., Webhook]
) -> None:
    """The example's check accepts what is posted, and nothing else: no other content, secret, or time."""
    origin = start_origin()
    assert open_webhook(origin.port).send(WARNING)
    until(lambda: origin.executions, "the warning")
    [request] = origin.executions
    content, field = bytes(request.body), signature(request)
    assert request.head.start == b"POST /a-secret-path?q HTTP/1.1"
    assert dict(request.head.fields)[b"content-type"] == b"application/json"
    assert is_genuine(SECRET, field, content)
    assert not is_genuine(SECRET, field, content + b" ")
    assert not is_genuine("another", field, content)
    old = sign(SECRET.encode(), content, at=int(time.time()) - 301)
    assert not is_genuine(SECRET, old, content)
    assert is_genuine(SECRET, old, content, tolerance_seconds=400)
    for garbage in ("", "t=,v1=", "v1=" + "0" * 64, "t=x,v1=y", field.replace("t=", "t=1")):
        assert not is_genuine(SECRET, garbage, content)


def test_the_content_is_that_of_the_page() -> None:
    """Every name of the example, and its money and moments in the same form."""
    [example] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    shown, made = json.loads(example), json.loads(content_of(WARNING))
    shown["id"] = made["id"]
    assert made == {**shown, "created_at": "2026-11-22T10:00:00Z"}


def test_the_same_news_has_the_same_id() -> None:
    """A receiver drops what another replica told already; a new period, share or limit is news."""

    def identity(**changed: Any) -> str:  # noqa: ANN401 - fields of a warning
        return str(json.loads(content_of(replace(WARNING, **changed)))["id"])

    assert identity(at=WARNING.at + 5, spent_ns=WARNING.spent_ns + 1, reserved_ns=0) == identity()
    news: tuple[dict[str, Any], ...] = (
        {"share": 1.0},
        {"period_start": 0},
        {"id": "x"},
        {"scope": "key"},
        {"limit_ns": 1},
        {"period": "day"},
    )
    assert len({identity(), *(identity(**one) for one in news)}) == len(news) + 1


def test_passing_trouble_is_tried_again(start_origin: StartOrigin, open_webhook: Callable[..., Webhook]) -> None:
    """A connection that ends, 429 and 5xx; the same content each time, under a signature of its own time."""
    origin = start_origin(
        in_turn(None, http_response(status=429), http_response(status=503), http_response(status=204, body=b""))
    )
    open_webhook(origin.port).send(WARNING)
    until(lambda: len(origin.executions) == 4, "four attempts")
    assert len({bytes(request.body) for request in origin.executions}) == 1
    assert all(is_genuine(SECRET, signature(request), bytes(request.body)) for request in origin.executions)


@pytest.mark.parametrize("status", [302, 307, 400, 401, 404, 410])
def test_a_refusal_is_final(
    status: int, start_origin: StartOrigin, open_webhook: Callable[..., Webhook], events: list[dict[str, Any]]
) -> None:
    """One attempt, one event; a redirect is not followed. The next warning has its own chance."""
    target = start_origin()
    where = [("Location", f"http://{LOOPBACK}:{target.port}/")]
    origin = start_origin(in_turn(http_response(b"", status, fields=where), http_response()))
    webhook = open_webhook(origin.port)
    webhook.send(WARNING)
    webhook.send(replace(WARNING, id="other"))
    until(lambda: len(origin.executions) == 2, "both warnings")
    [event] = until(lambda: named(events, "webhook_given_up"), "the event")
    assert (event["host"], event["attempts"], event["reason"]) == (LOOPBACK, 1, f"it answered {status}")
    assert target.requests == []


def test_a_receiver_that_stays_away_is_given_up(
    open_webhook: Callable[..., Webhook], events: list[dict[str, Any]]
) -> None:
    """After its time, with one event, in which neither the path nor the secret stands."""
    webhook = open_webhook(refused_port(), persistence=SHORT)
    webhook.send(WARNING)
    [event] = until(lambda: named(events, "webhook_given_up"), "the end")
    assert event["attempts"] > 1
    assert "secret" not in str(events)
    assert "canary" not in str(events)


def test_what_waits_is_bounded_and_nobody_waits(
    start_origin: StartOrigin, open_webhook: Callable[..., Webhook], events: list[dict[str, Any]]
) -> None:
    """A silent receiver holds one; a hundred wait behind it; more are dropped, which is told once."""
    may_answer = threading.Event()

    def slow(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            may_answer.wait(30)
            connection.send(http_response())

    origin = start_origin(slow)
    webhook = open_webhook(origin.port)
    webhook.send(WARNING)
    origin.wait_for_requests(1)
    taken = [webhook.send(replace(WARNING, id=f"team-{number}")) for number in range(QUEUE_MOST + 5)]
    assert taken == [True] * QUEUE_MOST + [False] * 5
    assert len(named(events, "webhook_full")) == 1
    may_answer.set()
    until(lambda: len(origin.executions) == QUEUE_MOST + 1, "all that were taken")


def test_closing_tries_once_more_and_does_not_wait_long(
    start_origin: StartOrigin, open_webhook: Callable[..., Webhook], events: list[dict[str, Any]]
) -> None:
    """What waits is posted where the receiver answers; a wait between attempts, and a silent receiver, are ended."""
    origin = start_origin(in_turn(http_response(status=503), *[http_response()] * 3))
    patient = Persistence(backoff=Backoff(1000, 1000), try_seconds=10_000)
    webhook = open_webhook(origin.port, persistence=patient)
    for number in range(4):
        webhook.send(replace(WARNING, id=f"team-{number}"))
    origin.wait_for_requests(1)
    webhook.close(20)
    webhook.close(20)
    assert len(origin.executions) == 4
    assert not webhook.send(WARNING)
    assert len(named(events, "webhook_given_up")) == 1

    def silent(connection: OriginConnection) -> None:
        connection.read_request()
        connection.wait_for_leaving()

    stalled = start_origin(silent)
    held = open_webhook(stalled.port, persistence=Persistence(answer_seconds=1000))
    held.send(WARNING)
    stalled.wait_for_requests(1)
    held.close(0.1)
    until(lambda: not held._thread.is_alive(), "the thread's end")


@pytest.mark.parametrize("url", ["ftp://h/", "file:///etc/passwd", "http://", "h/path", ""])
def test_only_web_addresses_are_taken(url: str) -> None:
    """Nothing else could be posted to, and a file is not for a webhook to read."""
    with pytest.raises(ValueError, match="http or https"):
        Webhook(url, SECRET)


def test_an_answer_of_any_kind_is_not_kept(start_origin: StartOrigin, open_webhook: Callable[..., Webhook]) -> None:
    """A page of HTML with 200 is a yes."""
    origin = start_origin(answering(http_response(b"x" * 100_000)))
    webhook = open_webhook(origin.port)
    webhook.send(WARNING)
    webhook.close(20)
    assert len(origin.executions) == 1
