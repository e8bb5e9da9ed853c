"""Forty callers of every kind: each draws what it does next from a seed of its own, at a modest pace.

The decision it carries: every paid request has content of its own, so that the origin's records tell one execution from
two, and an answer that belongs to someone else is known by the digest that the emulator puts into it.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

from tests.chaos.observed import BROKEN, Call
from tests.chaos.tenants import ENDPOINTS, UNITS
from tests.harness.client import RawClient, Response
from tests.harness.messages import message, proxy_request
from tests.harness.wire import Malformed, Truncated

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from tests.chaos.observed import Observed
    from tests.chaos.plan import Draw
    from tests.chaos.site import Site
    from tests.harness.policy import GatewayKey

ANSWER_SECONDS: Final = 25.0
KEEP_CONNECTION: Final = 0.7
ORIGIN_FAULTS: Final = (
    *("", "", "", "", "", "", "", ""),
    *("status=500", "status=503", "status=429", "status=422", "cut=20", "cut=20,reset", "close=whole", "close=head"),
    *("close=whole,reset", "delay=700", "behind", "behind,framing=chunked", "interim=2", "gzip", "framing=chunked"),
    *("framing=none", "piece=40,pace=5", "stall=10", "trailers"),
)
UPLOAD_BYTES: Final = (20_000, 300_000)
HALF_READ_BYTES: Final = 400_000
UNASKED: Final = b'"unasked"'
POLLS_MOST: Final = 12


class Caller:
    """One caller, in a thread of its own until `stop` is set."""

    def __init__(self, site: Site, number: int, draw: Draw, *, seen: Observed) -> None:
        self._site = site
        self._seen = seen
        self._pause_seconds = draw.pause_seconds
        self._faults = [line for line in ORIGIN_FAULTS if not draw.leaves_out(line)]
        self._number = number
        self._draw = random.Random(f"{draw.seed} {site.name} {number}")  # noqa: S311 - a schedule, not a secret
        self._clients: dict[int, RawClient] = {}
        self._count = 0
        names = list(site.tenants.keys)
        self._key = site.tenants.keys[names[number % len(names)]]

    def run(self, stop: threading.Event) -> None:
        """Call until `stop` is set."""
        actions = list(ACTIONS)
        while not stop.is_set():
            action = self._draw.choices(actions, [ACTIONS[each] for each in actions])[0]
            try:
                action(self)
            except (OSError, Truncated):
                self._leave()
            except Malformed as wrong:
                self._seen.problems.append(f"an answer that is no HTTP: {wrong}")
                self._leave()
            except Exception as fault:  # noqa: BLE001 - an answer that no code here expects is a finding, and others go on
                told = traceback.format_exc()
                self._seen.problems.append(f"{action.__name__} met what it does not expect: {fault!r} {told}")
                self._leave()
            if self._draw.random() > KEEP_CONNECTION:
                self._leave()
            stop.wait(self._draw.uniform(0.2, 1.8) * self._pause_seconds)
        self._leave()

    # -- what callers do ----------------------------------------------------------------------------------------

    def run_endpoint(self) -> None:
        """Run an endpoint; half of the time the origin does something wrong."""
        content = self._content()
        answer = self._ask("run", self._run(content, self._draw.choice(self._faults)))
        self._compare(answer, content)

    def upload(self) -> None:
        """Run an endpoint with large content."""
        content = self._content(self._draw.choice(UPLOAD_BYTES))
        self._compare(self._ask("upload", self._run(content, "")), content)

    def leave(self) -> None:
        """Leave in the upload, or before the answer."""
        request = self._run(self._content(20_000), "delay=500")
        client = self._client()
        client.send(request[: self._draw.choice((len(request), len(request) - 5_000))])
        self._note("leave", BROKEN, time.monotonic())
        self._leave(reset=self._draw.random() < 0.5)

    def read_half(self) -> None:
        """Read a part of a large answer, and leave."""
        began_at = time.monotonic()
        client = self._client()
        client.send(self._run(self._content(), f"size={HALF_READ_BYTES}"))
        head = client.read_head()
        if head.status == 200:
            next(client.pieces(head))
            time.sleep(self._draw.uniform(0, 0.3))  # a slow reader, and no wait for anything
        self._note("read_half", head.status, began_at)
        self._leave(reset=True)

    def stream(self) -> None:
        """Read a stream of events, to its end or not."""
        began_at = time.monotonic()
        client = self._client()
        content = self._content()
        target = f"https://fal.run/{self._draw.choice(ENDPOINTS)}/stream"
        client.send(self._request(target, content, f"units={self._draw.choice(UNITS)},events=4"))
        head = client.read_head()
        request_id = (head.value(b"x-gateway-request-id") or b"").decode()
        leaves = self._draw.random() < 0.4
        pieces = b""
        for piece in client.pieces(head):
            pieces += piece
            if leaves:
                break
        self._note("stream", head.status, began_at, request_id)
        if leaves:
            self._leave()
        elif head.status == 200 and hashlib.sha256(content).hexdigest().encode() not in pieces:
            self._seen.problems.append(f"the stream of another: request {request_id}")

    def fetch_job(self) -> None:
        """Submit a job, poll it, and fetch its result, sometimes twice and through another gateway."""
        content = self._content()
        job = self._submit(content, "queued=100,running=150")
        if job is None:
            return
        for _ in range(POLLS_MOST):
            polled = self._ask("poll", self._free(f"{job}/status"))
            if polled.status == 200 and polled.json().get("status") == "COMPLETED":
                break
            time.sleep(0.2)  # the pace of a client that polls
        for _ in range(self._draw.choice((1, 1, 2))):
            self._compare(self._ask("result", self._free(job)), content)

    def abandon_job(self) -> None:
        """Submit a job and never ask for it."""
        self._submit(self._content(), "queued=100,running=100")

    def cancel_job(self) -> None:
        """Submit a job that waits for long, and cancel it."""
        job = self._submit(self._content(), "queued=900000")
        if job is not None:
            self._ask("cancel", self._free(f"{job}/cancel", method="PUT"))

    def ask_for_the_job_of_another(self) -> None:
        """Submit a job, and ask for its result with the key of another team at once: never a 200."""
        job = self._submit(self._content(), "queued=0,running=0")
        others = [key for key in self._site.tenants.keys.values() if key.team != self._key.team]
        if job is None:
            return
        other = self._draw.choice(others)
        answer = self._ask("stranger", self._free(job, key=other), key=other.id)
        if answer.status == 200:
            self._seen.problems.append(f"{other.id} was given the job of {self._key.id}: {job}")

    def show_a_wrong_key(self) -> None:
        """Call with a key that no one has."""
        stranger = self._site.tenants.stranger
        answer = self._ask("wrong_key", self._request(self._target(), self._content(), "", stranger), key="unknown")
        if answer.status == 200:
            self._seen.problems.append("a wrong key was let in")

    def call_for_free(self) -> None:
        """Ask for a job that there is not."""
        self._ask("free", self._free(f"https://queue.fal.run/acme/video/requests/{self._uuid()}/status"))

    def look_at_usage(self) -> None:
        """Read the page of one's own spend."""
        head = message("GET /api/fal/usage HTTP/1.1", [("Host", "gateway.test"), self._authorization()])
        self._ask("usage", head, method="GET")

    # -- parts --------------------------------------------------------------------------------------------------

    def _submit(self, content: bytes, times: str) -> str | None:
        endpoint = self._draw.choice(ENDPOINTS)
        units = self._draw.choice(UNITS)
        answer = self._ask(
            "submit", self._request(f"https://queue.fal.run/{endpoint}", content, f"units={units},{times}")
        )
        if answer.status != 200 or UNASKED in answer.body:
            return None
        application = "/".join(endpoint.split("/")[:2])
        return f"https://queue.fal.run/{application}/requests/{answer.json()['request_id']}"

    def _target(self) -> str:
        return f"https://fal.run/{self._draw.choice(ENDPOINTS)}"

    def _run(self, content: bytes, fault: str) -> bytes:
        line = ",".join(filter(None, (f"units={self._draw.choice(UNITS)}" if "status" not in fault else "", fault)))
        return self._request(self._target(), content, line)

    def _request(self, target: str, content: bytes, line: str, key: GatewayKey | None = None) -> bytes:
        fields = [("x-fal-emulate", line)] if line else []
        return proxy_request(target, key=key or self._key, body=content, fields=fields)

    def _free(self, target: str, *, key: GatewayKey | None = None, method: str = "GET") -> bytes:
        return proxy_request(target, key=key or self._key, method=method, body=b"", content_type=None)

    def _authorization(self) -> tuple[str, str]:
        return ("Authorization", f"Key {self._key.secret}")

    def _content(self, least_bytes: int = 0) -> bytes:
        self._count += 1
        prompt = f"{self._site.name} {self._number} {self._count} {self._draw.random()}"
        return json.dumps({"prompt": prompt, "padding": "x" * least_bytes}).encode()

    def _uuid(self) -> str:
        digits = f"{self._draw.getrandbits(128):032x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def _compare(self, answer: Response, content: bytes) -> None:
        """Hold an answer against what was asked: its digest is that of this content."""
        if answer.status != 200 or answer.field("content-encoding") or UNASKED in answer.body:
            return
        request_id = answer.field("x-gateway-request-id")
        try:
            told: Any = answer.json()
        except ValueError:
            self._seen.problems.append(f"an answer that is no JSON: request {request_id} got {answer}")
            return
        if told.get("sha256") != hashlib.sha256(content).hexdigest():
            self._seen.problems.append(f"the answer of another: request {request_id} got {told}")

    def _ask(self, kind: str, request: bytes, *, key: str = "", method: str = "POST") -> Response:
        began_at = time.monotonic()
        client = self._client()
        try:
            client.send(request)
            answer = client.read_response(method)
        except (OSError, Truncated):
            self._note(kind, BROKEN, began_at, key=key)
            raise
        request_id = answer.field("x-gateway-request-id") or ""
        error_type = answer.field("x-fal-error-type") or ""
        self._note(kind, answer.status, began_at, request_id, key=key, error_type=error_type)
        if UNASKED in answer.body:
            self._seen.problems.append(f"bytes that no one asked for: {kind} {request_id} got {answer.body!r}")
        if answer.field("connection") == "close":
            self._leave()
        return answer

    def _note(  # noqa: PLR0913 - the fields of a record
        self, kind: str, status: int, began_at: float, request_id: str = "", *, key: str = "", error_type: str = ""
    ) -> None:
        ended_at = time.monotonic()
        port = self._port
        self._seen.calls.append(
            Call(kind, key or self._key.id, port, status, began_at, ended_at, request_id, error_type)
        )

    def _client(self) -> RawClient:
        """Return a connection to one of the gateways, an open one where there is one."""
        self._port = self._draw.choice(self._site.replicas).port
        if self._port not in self._clients:
            self._clients[self._port] = RawClient(self._port, timeout_seconds=ANSWER_SECONDS)
        return self._clients[self._port]

    def _leave(self, *, reset: bool = False) -> None:
        for client in self._clients.values():
            if reset:
                client.reset()
            client.close()
        self._clients.clear()


ACTIONS: Final[dict[Callable[[Caller], None], int]] = {
    Caller.run_endpoint: 30,
    Caller.fetch_job: 12,
    Caller.stream: 6,
    Caller.upload: 4,
    Caller.leave: 5,
    Caller.read_half: 4,
    Caller.abandon_job: 4,
    Caller.cancel_job: 4,
    Caller.ask_for_the_job_of_another: 3,
    Caller.show_a_wrong_key: 1,
    Caller.call_for_free: 4,
    Caller.look_at_usage: 2,
}
