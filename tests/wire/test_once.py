"""1,000 paid requests over connections that break at random moments on both sides: none is ever executed twice."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.harness.messages import http_response
from tests.harness.wire import Truncated, framed_pieces

if TYPE_CHECKING:
    from tests.harness.client import RawClient
    from tests.harness.origin import OriginConnection, Received
    from tests.harness.scene import Scene

REQUESTS: Final = 1000
CALLERS: Final = 16
SEED: Final = 20260731
SIZES: Final = (20, 3_000, 60_000, 150_000)
JSON: Final = ("Content-Type", "application/json")
PNG: Final = ("Content-Type", "image/png")
ANSWER_BYTES: Final = 20_000

ORIGIN_BREAKS: Final = ("unread", "part", "unanswered", "in head", "in body")
ORIGIN_SOUND: Final = ("keeps", "keeps", "keeps", "closes idle")
CLIENT_LEAVES: Final = ("in upload", "unanswered", "in answer")
CLIENT_STAYS: Final = ("stays",) * 5


@dataclass(frozen=True, slots=True)
class Case:
    """One request: what origin and client will do, by which end, and how it is framed."""

    number: int
    origin: str
    client: str
    by_reset: bool
    size: int
    in_chunks: bool
    picture: bool

    @property
    def is_sound(self) -> bool:
        """Whether nobody breaks anything before the answer is whole."""
        return self.origin in ORIGIN_SOUND and self.client == "stays"


@dataclass(slots=True)
class Seen:
    """What the client saw: a status, whether the answer was whole, and whether the connection may be used again."""

    status: int | None = None
    whole: bool = False
    stays: bool = False


def draw(dice: random.Random, number: int) -> Case:
    """Return a random case."""
    return Case(
        number,
        dice.choice(ORIGIN_BREAKS + ORIGIN_SOUND),
        dice.choice(CLIENT_LEAVES + CLIENT_STAYS),
        dice.random() < 0.5,
        dice.choice(SIZES),
        dice.random() < 0.5,
        dice.random() < 0.3,
    )


# -- the origin's side ------------------------------------------------------------------------------------------------


def act(connection: OriginConnection) -> None:
    """Serve requests as each of them says, until one says to break."""
    while (received := connection.read_head()) is not None:
        fate = (received.head.value(b"x-fal-fate") or b"").decode()
        if not serve(connection, received, fate=fate):
            if received.head.value(b"x-fal-by") == b"reset":
                connection.reset()
            return


def serve(connection: OriginConnection, received: Received, *, fate: str) -> bool:
    """Serve one request; return whether the connection goes on."""
    if fate == "unread":
        return False
    if fate == "part":
        next(framed_pieces(connection.reader, received.head), None)
        return False
    connection.read_body(received)
    picture = received.head.value(b"x-fal-answer") == b"picture"
    answer = http_response(b"x" * ANSWER_BYTES, fields=[PNG if picture else JSON])
    if fate == "keeps":
        connection.send(answer)
        return True
    if fate == "closes idle":  # in the segment of the answer's last byte, so that no request can be faster
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    part = {"unanswered": 0, "in head": 30, "in body": len(answer) // 2, "closes idle": len(answer)}[fate]
    connection.send(answer[:part])
    connection.close()
    return False


# -- the client's side ------------------------------------------------------------------------------------------------


def call(scene: Scene, client: RawClient, case: Case) -> Seen:
    """Send one request and do what its case says; return what was seen."""
    content = b'{"number":%d,"pad":"%b"}' % (case.number, b"x" * case.size)
    fields = [
        ("x-fal-fate", case.origin),
        ("x-fal-by", "reset" if case.by_reset else "close"),
        ("x-fal-answer", "picture" if case.picture else "json"),
    ]
    request = scene.request(body=content, fields=fields, in_chunks=case.in_chunks)
    seen = Seen()
    with contextlib.suppress(Truncated):
        client.send(request[: -case.size // 2] if case.client == "in upload" else request)
        if case.client in {"in upload", "unanswered"}:
            return seen
        head = client.read_head()
        seen.status = head.status
        if case.client == "stays":
            list(client.pieces(head))
            seen.whole = True
            seen.stays = head.value(b"connection") != b"close"
    return seen


def calls(scene: Scene, cases: list[Case]) -> dict[int, Seen]:
    """Make these calls one after the other, on one connection for as long as it lasts."""
    seen: dict[int, Seen] = {}
    with ExitStack() as stack:
        client: RawClient | None = None
        for case in cases:
            client = client or stack.enter_context(scene.connect())
            mine = seen[case.number] = call(scene, client, case)
            if not mine.stays:
                (client.reset if case.by_reset else client.close)()
                client = None
    return seen


def executions(scene: Scene) -> Counter[int]:
    """Count what the origin received whole, by the number in its content."""
    found = (re.match(rb'\{"number":(\d+)', request.body) for request in scene.origin.executions)
    return Counter(int(match[1]) for match in found if match)


def wrong(case: Case, saw: Seen, executed: int) -> bool:
    """Say whether a case ended as none may."""
    if executed > 1 or (saw.status == 200 and executed != 1):
        return True
    if case.is_sound:
        return not (saw.status == 200 and saw.whole and executed == 1)
    waited = case.client in {"stays", "in answer"}  # who leaves before is believed, also with bytes still unread
    return waited and case.origin not in {"unread", "part"} and executed != 1


def test_no_paid_request_is_executed_twice(scene: Scene) -> None:
    """Counted at the origin, by a number in the content: never 2, 200 only for exactly 1; each in the books once."""
    dice = random.Random(SEED)  # noqa: S311 (nothing secret: a failure must be repeatable)
    cases = [draw(dice, number) for number in range(REQUESTS)]
    scene.play(act)
    with ThreadPoolExecutor(CALLERS) as pool:
        parts = list(pool.map(lambda turn: calls(scene, cases[turn::CALLERS]), range(CALLERS)))
    seen = {number: saw for part in parts for number, saw in part.items()}
    events = scene.settled(REQUESTS)
    counted = executions(scene)
    assert [(it, seen[it.number]) for it in cases if wrong(it, seen[it.number], counted[it.number])] == []
    assert {saw.status for saw in seen.values()} == {None, 200, 500}
    assert {event["outcome"] for event in events} == {"ok", "origin_failed", "cut", "client_gone"}
    assert scene.origin.connections < REQUESTS + CALLERS
