"""What every imitated endpoint has in common: the body streamed and counted, the key checked, the faults obeyed.

Decision: one way for all of fal's hosts. A handler names what it is (`kind`) and composes an Answer; whether the body
is whole, who may ask, what is recorded, and how an answer leaves (or does not) is decided here, once. Of a body only
the first MiB is kept, for reading an input out of it; the rest is hashed, counted and let go.
"""

from __future__ import annotations

import hashlib
import uuid
from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final, cast

from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler, stream_request_body

from gateway.emulator.answers import DETAILS, Answer, failure
from gateway.emulator.delivery import deliver
from gateway.emulator.faults import NO_FAULTS, FaultError, Faults, parse
from gateway.emulator.ledger import Visit
from gateway.emulator.models import read_input
from gateway.emulator.response_faults import twist
from gateway.emulator.wire import Wire

if TYPE_CHECKING:
    from tornado.http1connection import HTTP1Connection

    from gateway.emulator.state import World

KEPT_MOST_BYTES: Final = 2**20
FAULT_FIELD: Final = "x-fal-emulate"


@stream_request_body
class Reception(RequestHandler):
    """One request to one of fal's hosts. Subclasses set the class variables and compose the answer.

    `kind` is run, stream, submit or free; `step` is the name by which the fault `on` means this request.
    """

    kind: ClassVar[str] = "free"
    step: ClassVar[str] = ""
    needs_key: ClassVar[bool] = True

    def initialize(self, *, world: World) -> None:
        """Take what the application hands to every handler, and open the record of the visit."""
        self.world = world
        self.faults = NO_FAULTS
        self.refusal: Answer | None = None
        self.kept = bytearray()
        self.digest = hashlib.sha256()
        self.is_early = False
        self.wire = Wire(cast("HTTP1Connection", self.request.connection))
        self.visit = self._visit()
        world.ledger.see(self.visit)

    def _visit(self) -> Visit:
        return Visit(
            request_id=str(uuid.uuid4()),
            kind=self.kind,
            method=str(self.request.method),
            host=self.request.host_name,
            target=str(self.request.uri),
            head="\n".join(f"{name.lower()}: {value}" for name, value in self.request.headers.get_all()),
            started_at=self.world.wall(),
        )

    async def prepare(self) -> None:
        """Read the head: refuse it, or fail on it at once where a fault says so."""
        self._auto_finish = False  # every answer goes out through the wire, also the end of it
        self.visit.endpoint = self.path_kwargs.get("endpoint", "")
        try:
            self.faults = self.asked_faults()
        except FaultError as error:
            self.refusal = failure(400, detail=f"{FAULT_FIELD}: {error}")
        if self.refusal is None and self.needs_key:
            self.refusal = self._authenticate()
        if self.faults.close == 0:
            self.drop()
        elif self.faults.early is not None and self.refusal is None:
            await self._answer_early(self.faults.early)

    def asked_faults(self) -> Faults:
        """Return the faults that strike this request."""
        faults = self.line_faults()
        return faults if faults.on in {"", self.step} else NO_FAULTS

    def line_faults(self) -> Faults:
        """Return the faults out of the request's field, its path, or the settings, in this order."""
        line = ",".join(self.request.headers.get_list(FAULT_FIELD))
        path = self.path_kwargs.get("asked", "").removeprefix("emulate/").removesuffix("/")
        return parse(line or path or self.world.behaviour.faults.get(self.request.host_name, ""))

    def _authenticate(self) -> Answer | None:
        authorization = self.request.headers.get("authorization")
        if authorization is None:
            return failure(401)
        known = self.world.knows(authorization)
        return None if known else failure(401, detail="No user found for Key ID and Secret")

    async def _answer_early(self, status: int) -> None:
        """Answer while the body is still coming, then read it on (or, with `reset`, break off at once)."""
        self.is_early = True
        early = self.identified(failure(status, fields=(("connection", "close"),)))
        self.visit.status = status
        try:
            await deliver(early, self.wire, faults=Faults(delay=self.faults.delay), ends=False)
            self.close_visit("answered")
        except StreamClosedError:
            self.close_visit("peer_gone")
        if self.faults.reset:
            self.drop()

    async def data_received(self, chunk: bytes) -> None:
        """Take a piece of the body; with `read_pace`, as slowly as asked."""
        self.digest.update(chunk)
        self.visit.bytes += len(chunk)
        if len(self.kept) < KEPT_MOST_BYTES:
            self.kept += chunk
        self.take(chunk)
        if self.faults.close is not None and self.visit.bytes >= self.faults.close:
            self.drop()
            return
        try:
            await self.wire.pause(self.faults.read_pace / 1000)
        except StreamClosedError:
            self.close_visit("incomplete")

    def take(self, chunk: bytes) -> None:
        """Do something more with a piece of the body."""

    def on_connection_close(self) -> None:
        """Take note that the peer is gone, in the midst of its body or while it waited."""
        super().on_connection_close()
        self.wire.lose()
        self.close_visit("incomplete" if self.visit.whole_at is None else "peer_gone")

    async def respond(self, **_path: str) -> None:
        """Answer a request whose body has arrived whole; every method that a handler knows is this one."""
        self.visit.whole_at = self.world.wall()
        self.visit.sha256 = self.digest.hexdigest()
        if self.is_early:
            self.wire.drop(reset=False)
            return
        try:
            await self._answer()
        except StreamClosedError:
            self.close_visit("peer_gone")

    async def _answer(self) -> None:
        answer = self.refusal or await self.compose()
        if self.faults.close_whole:
            self.drop()
            return
        answer = self.identified(answer)
        self.visit.status = answer.status
        ending = await deliver(answer, self.wire, faults=self.faults)
        self.close_visit(ending.value)

    @abstractmethod
    async def compose(self) -> Answer:
        """Return the answer to a request that has arrived whole and is not refused."""

    def identified(self, answer: Answer) -> Answer:
        """Return the answer with what the faults make of it, its request id, and its units."""
        if self.refusal is None:
            answer = self._twisted(answer)
        units = self.units_shown(answer.status)
        billable = () if units is None else (("x-fal-billable-units", units),)
        return replace(answer, fields=(*answer.fields, ("x-fal-request-id", self.visit.request_id), *billable))

    def _twisted(self, answer: Answer) -> Answer:
        visit = self.visit
        facts = {"request_id": visit.request_id, "sha256": visit.sha256, "bytes": visit.bytes}
        location = f"https://{visit.host}{self.request.path}/moved"
        return twist(answer, self.faults, location=location, facts=facts)

    def units_shown(self, _status: int) -> str | None:
        """Return what `x-fal-billable-units` says on an answer of this status; None leaves it out."""
        return None

    def inputs(self) -> dict[str, object]:
        """Return the input: the JSON body, or for GET the query's first values; empty where it is neither."""
        if self.request.method == "GET":
            return {name: values[0].decode(errors="replace") for name, values in self.request.query_arguments.items()}
        return read_input(bytes(self.kept)) if self.visit.bytes <= KEPT_MOST_BYTES else {}

    def drop(self) -> None:
        """Break the connection off as the faults say."""
        self.close_visit("dropped")
        self.wire.drop(reset=self.faults.reset)

    def close_visit(self, outcome: str) -> None:
        """Write down how the request ended; the first word holds."""
        if self.visit.outcome == "open":
            self.visit.outcome = outcome
            self.visit.ended_at = self.world.wall()

    def send_error(self, status_code: int = 500, **kwargs: object) -> None:
        """Answer an unknown method, or a bug of ours; once an answer is under way, the connection ends with it."""
        if self.visit.status is not None:
            self.drop()
            return
        super().send_error(status_code, **kwargs)

    def write_error(self, status_code: int, **_: object) -> None:
        """Answer Tornado's own errors as JSON."""
        self.visit.status = status_code
        self.close_visit("answered")
        self.finish({"detail": DETAILS.get(status_code, self._reason)})
