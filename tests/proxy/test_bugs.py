"""A bug of the gateway's own ends the exchange that it hits, once and counted, and no other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from gateway.config.ruleset import ruleset_with_key
from gateway.fal.credential import Sender
from gateway.http.fields import CallerFields, OriginFields
from gateway.http.interfaces import Caller
from gateway.http.message import RequestHead
from gateway.http.responses import Replies
from gateway.limits.limiter import Limiter
from gateway.limits.wait_queue import WaitQueue
from gateway.money.accounting import Accounting
from gateway.platform.memory_pressure import MemoryPressure
from gateway.policy.credential import digest_of
from gateway.policy.price import Estimates
from gateway.proxy.application import ProxyApplication
from gateway.proxy.authorization import Authorizer
from gateway.proxy.services import Services
from gateway.state.memory.jobs import JobTable, LocalJobs
from gateway.state.memory.store import LocalStore, Quotas
from gateway.telemetry.metrics.counters import Region
from gateway.telemetry.metrics.endpoint_labels import EndpointLabels
from gateway.telemetry.metrics.meter import Meter
from gateway.upstream.clock import Clock
from gateway.upstream.interface import OriginFailure, Request, Upstream
from gateway.upstream.timeouts import OriginTimeouts
from gateway.upstream.transfers import Carrier, Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.telemetry.record import ExchangeRecord
    from gateway.upstream.interface import Answer
    from gateway.upstream.transfer import Transfer


class Mistake(Exception):  # noqa: N818 (what it stands for is a bug, whatever its name)
    """Stands for any bug."""


class Idle(Carrier):
    """Carries nothing; transfers are put into their states by the test."""

    def __init__(self) -> None:
        self.clock = Clock()

    def start(self, transfer: Transfer, *, fresh: bool) -> None:
        """Note nothing."""

    def repause(self, transfer: Transfer) -> None:
        """Note nothing."""

    def drop(self, transfer: Transfer) -> None:
        """Note nothing."""


class Listener:
    """An exchange that writes down what it hears, or breaks down over it."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.heard: list[object] = []
        self._breaks = breaks

    def on_answer(self, head: tuple[int, list[bytes]] | None, pieces: Sequence[bytes], *, whole: bool) -> None:
        """Take an answer."""
        if self._breaks:
            raise Mistake
        self.heard.append((head, list(pieces), whole))

    def on_failure(self, failure: OriginFailure) -> None:
        """Take a failure."""
        self.heard.append(failure)

    def on_room(self) -> None:
        """Note nothing."""


class Listening(Caller):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.statuses: list[int] = []

    def respond(self, status: int, lines: Sequence[bytes], length: int | None) -> None:  # noqa: ARG002 (the seam's)
        """Keep the status."""
        self.statuses.append(status)

    def send(self, pieces: Sequence[bytes], *, last: bool) -> None:
        """Note nothing."""

    def falls_behind(self) -> bool:
        """Keep up."""
        return False

    def hold_content(self) -> None:
        """Note nothing."""

    def resume_content(self) -> None:
        """Note nothing."""

    def proceed(self) -> None:
        """Note nothing."""

    def cut(self) -> None:
        """Note nothing."""


def never(_seconds: float, _call: object) -> NoReturn:
    """Stand for a timer that this test does not come to."""
    raise AssertionError


class Nowhere:
    """A journal that nobody reads."""

    def is_full_for(self, key: str) -> bool:  # noqa: ARG002 (for everybody)
        """Say that there is room (`Journal`)."""
        return False

    def flush(self) -> bool:
        """Say that it is written (`Journal`)."""
        return True

    def append(self, line: bytes, refused: Callable[[], None] | None = None, optional: bool = False) -> None:  # noqa: FBT001, FBT002
        """Let it go."""


class BrokenUpstream(Upstream):
    """Breaks down over each request."""

    def open(self, request: Request, answer: Answer) -> NoReturn:
        """Break down."""
        raise Mistake(request, answer)


def test_the_exchanges_told_in_the_same_turn_hear_theirs() -> None:
    """A bug in one exchange is reported to the loop and ends that one; the next in the turn gets its whole answer."""

    async def turn() -> list[Any]:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
        engine = Engine(Idle(), OriginTimeouts(1, 1, 1))
        request = Request("GET", "http://x/", [], None, None, repeatable=False)
        transfers = [engine.open(request, listener) for listener in listeners]
        for transfer in transfers:
            transfer.attempted = True
            for line in (b"HTTP/1.1 200 OK\r\n", b"\r\n"):
                assert transfer.put_line(line)
            engine.ended(transfer, 0)
        engine.tell()
        return told

    listeners = [Listener(breaks=True), Listener()]
    told = asyncio.run(turn())
    assert [type(bug) for bug in told] == [Mistake]
    assert [getattr(failure, "error_type", None) for failure in listeners[0].heard] == ["gateway_error"]
    assert listeners[1].heard == [((200, []), [], True)]


def test_a_bug_in_the_beginning_leaves_no_exchange_open() -> None:
    """The slot is given back, the caller hears 500 and not a retry's 502, and the event says whose fault it was."""
    records: list[ExchangeRecord] = []
    region, endpoints = Region(), EndpointLabels()
    rules = ruleset_with_key(digest_of(b"secret"))
    meter = Meter(region, endpoints, emit=records.append)
    store = LocalStore(Quotas(places=8, address_places=8))
    services = Services(
        authorizer=Authorizer(rules, max_body_bytes=10**6, find_job=lambda _job: None),
        upstream=BrokenUpstream(),
        meter=meter,
        to_origin=OriginFields(()),
        sender=Sender("", {}, tags=False),
        to_caller=CallerFields(),
        replies=Replies(frozenset()),
        origins={},
        accounting=Accounting(
            prices={},
            budgets_of=lambda _owner: (),
            refuses_unpriced=True,
            store=store,
            jobs=LocalJobs(JobTable(sets=1)),
            journal=Nowhere(),
            takings=meter,
            estimates=Estimates(),
            wall=lambda: 0.0,
        ),
        limiter=Limiter(
            local=store,
            shared=None,
            on_loss="local",
            counts=meter,
            room=WaitQueue(never),
            later=never,
        ),
        find_job=None,
        statement=dict,
        trusted_proxies=(),
        later=never,
        wall=lambda: 0.0,
    )
    gate = ProxyApplication(services, max_inflight=1, pressure=MemoryPressure(None))
    fields = [(b"host", b"x"), (b"authorization", b"Key secret"), (b"x-fal-target-url", b"https://fal.run/a/b")]
    head = RequestHead(
        "POST",
        b"/api/fal/proxy",
        fields=[*fields, (b"content-type", b"application/json")],
        length=100_000,
        expects_continue=False,
        is_http_10=False,
        peer="127.0.0.1",
        received_at=0.0,
    )
    caller = Listening()
    with pytest.raises(Mistake):
        gate.open(head, caller)
    assert gate.inflight == 0
    assert caller.statuses == [500]
    assert [(record.outcome, record.error_type) for record in records] == [("gateway_failed", "gateway_error")]
