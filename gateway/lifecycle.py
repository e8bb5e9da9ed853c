"""Processes and signals: starting, ready, draining, stopped.

A small supervisor without threads or an event loop forks one ops process and the workers, and forks again what dies:
its memory is clean at every fork, and a scrape or a probe never waits for a busy worker. It never touches the data
path, so it is the one that reads the policy again (reload.py), too. On SIGTERM readiness goes first, callers are still
accepted for the shutdown delay, then exchanges run out up to the drain timeout (RELIABILITY 2). A worker whose
supervisor is gone drains by itself.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final

import structlog

from gateway import app, exchange
from gateway.bulletin import Bulletin
from gateway.metering.board import Board, Seat, State
from gateway.metering.meter import Meter
from gateway.metering.metrics import POLICY_RELOAD_ERRORS
from gateway.ops.server import serve_ops
from gateway.reload import Reloads
from gateway.ruleset import named_endpoints
from gateway.state.jobs import JobTable
from gateway.state.local import Quotas
from gateway.worker import Lifeline, run_worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from gateway.metering.log import Log
    from gateway.policy.edition import Edition
    from gateway.settings import Settings

_SIGNALS: Final = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP))
_TICK_SECONDS: Final = 0.05
_FIRST_DELAY_SECONDS: Final = 0.1
_LONGEST_DELAY_SECONDS: Final = 5.0
_STEADY_SECONDS: Final = 10.0  # a process that lived so long did not fail at its start
_OPS_STOP_SECONDS: Final = 2.0


@dataclass(slots=True)
class Child:
    """A seat and the process in it; `pid` 0 while it waits to be started again at `due_at` (monotonic seconds)."""

    seat: Seat
    is_ops: bool
    pid: int = 0
    started_at: float = 0.0
    due_at: float = 0.0
    delay: float = _FIRST_DELAY_SECONDS


class Supervisor:
    """The first process."""

    def __init__(self, settings: Settings, policy: Edition, *, environ: Mapping[str, str], log: Log) -> None:
        """Bind both listeners; OSError names what cannot be had. `environ`: where teams' credentials may stand."""
        self._settings, self._log = settings, log
        app.bind(settings.host, settings.port, shared=False).close()  # another gateway may not share the port
        self._reserved = app.bind(settings.host, settings.port, shared=True)  # kept for workers that come back
        self._ops_listener = app.bind(settings.ops_host, settings.ops_port, shared=False)
        self._ops_listener.listen()
        self._board = Board(workers=settings.workers)
        self._jobs = JobTable()
        self._quotas = Quotas(seats=settings.workers)
        self._lifeline = Lifeline()
        self._children = [Child(self._board.ops, is_ops=True)]
        self._children += [Child(seat, is_ops=False) for seat in self._board.workers]
        self._stops = 0  # how often it was asked to stop
        self._events = structlog.get_logger()
        self._meter = Meter(self._board.supervisor.region, self._board.endpoints, emit=log.exchange)
        log.count_to(self._meter.count_dropped)
        self._reload_errors = self._board.supervisor.region.claim_spare(POLICY_RELOAD_ERRORS.name, ())
        self._bulletin = Bulletin()
        self._put_in_force(policy)
        self._reloads = Reloads(
            policy,
            path=settings.policy,
            environ=environ,
            put_in_force=self._put_in_force,
            count_error=self._count_reload_error,
        )

    @property
    def address(self) -> str:
        """Where callers connect, as `host:port`."""
        return _name(self._reserved)

    @property
    def ops_address(self) -> str:
        """Where operators connect, as `host:port`."""
        return _name(self._ops_listener)

    def start(self) -> bool:
        """Start everything; False where it was stopped, or a worker died, before all were ready."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        for child in self._children:
            self._fork(child)
        while self._board.count(State.READY) < self._settings.workers:
            self._tick()
            if self._stops:
                return False
        self._board.supervisor.state = State.READY
        self._events.info(
            "gateway_ready",
            address=self.address,
            ops=self.ops_address,
            workers=self._settings.workers,
            compiled=not (exchange.__file__ or "").endswith(".py"),
        )
        return True

    def supervise(self) -> None:
        """Keep the processes running until a stop has run its course."""
        while not self._stops or any(child.pid for child in self._children if not child.is_ops):
            self._tick()
        self._stop_ops()
        self._events.info("gateway_stopped")

    # -- events -----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Wait for a signal, for a moment; act on it and on what is due."""
        received = signal.sigtimedwait(_SIGNALS, _TICK_SECONDS)
        if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif received is not None and received.si_signo == signal.SIGHUP:
            self._reloads.reload()
        self._reloads.look(monotonic())
        self._reap()
        for child in self._children:
            if not child.pid and not self._stops and monotonic() >= child.due_at:
                self._fork(child)

    def _stop(self) -> None:
        self._stops += 1
        self._board.supervisor.state = State.DRAINING
        self._events.info("gateway_draining", asked=self._stops)
        for child in self._children:
            if child.pid and not child.is_ops:
                os.kill(child.pid, signal.SIGTERM)

    def _reap(self) -> None:
        for child in self._children:
            if not child.pid:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._bury(child, os.waitstatus_to_exitcode(status))

    def _bury(self, child: Child, code: int) -> None:
        child.seat.vacate()
        if not child.is_ops:
            self._quotas.vacate(self._board.workers.index(child.seat))
        if not self._stops:
            steady = monotonic() - child.started_at > _STEADY_SECONDS
            child.delay = _FIRST_DELAY_SECONDS if steady else min(child.delay * 2, _LONGEST_DELAY_SECONDS)
            child.due_at = monotonic() + child.delay
            self._events.error("process_died", pid=child.pid, code=code, ops=child.is_ops, again_in=child.delay)
        child.pid = 0

    def _stop_ops(self) -> None:
        """End the ops process last: probes are answered to the end."""
        self._board.supervisor.state = State.STOPPED
        ops = self._children[0]
        if ops.pid:
            os.kill(ops.pid, signal.SIGTERM)
        deadline = monotonic() + _OPS_STOP_SECONDS
        while ops.pid:
            self._reap()
            if ops.pid and monotonic() > deadline:
                os.kill(ops.pid, signal.SIGKILL)
            signal.sigtimedwait((signal.SIGCHLD,), _TICK_SECONDS)

    # -- policy -----------------------------------------------------------------------------------------------------

    def _put_in_force(self, policy: Edition) -> int:
        """Hand a policy to the workers, once the metrics know it; return its generation."""
        document = policy.document
        self._board.endpoints.configure(named_endpoints(document))
        priced = [price.endpoint for price in document.prices]
        self._meter.introduce(((key.team, key.id) for key in document.keys), endpoints=priced)
        return self._bulletin.publish(policy.to_json())

    def _count_reload_error(self) -> None:
        self._board.supervisor.region.cells[self._reload_errors] += 1

    # -- processes --------------------------------------------------------------------------------------------------

    def _fork(self, child: Child) -> None:
        child.started_at = monotonic()
        child.pid = os.fork()
        if child.pid == 0:
            self._be(child)

    def _be(self, child: Child) -> None:
        """Become the child; never returns."""
        code = 1
        try:
            for number in (signal.SIGINT, signal.SIGHUP):  # these reach the whole group; the supervisor acts on them
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            self._lifeline.hold_end()
            child.seat.take(os.getpid())
            self._log.start_writer()
            if child.is_ops:
                meter = Meter(child.seat.region, self._board.endpoints, emit=self._log.exchange)
                self._log.count_to(meter.count_dropped)
                serve_ops(self._ops_listener, self._board, on_orphaned=self._lifeline.on_cut)
            else:
                host, port = self._reserved.getsockname()[:2]
                run_worker(
                    self._settings,
                    bulletin=self._bulletin,
                    board=self._board,
                    seat=child.seat,
                    log=self._log,
                    jobs=self._jobs,
                    quotas=self._quotas,
                    listener=app.listen(host, port),
                    lifeline=self._lifeline,
                )
            code = 0
        except Exception:
            self._events.exception("process_failed")
            raise
        finally:
            self._log.stop(1.0)
            os._exit(code)


def _name(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def run(
    settings: Settings,
    policy: Edition,
    *,
    environ: Mapping[str, str],
    log: Log,
    announce: Callable[[Supervisor], None],
) -> int:
    """Run the gateway until it is stopped; `announce` is called once all workers are ready. Returns the exit code.

    `environ` holds the variables that a policy may name. OSError where a listener cannot be bound.
    """
    app.raise_descriptor_limit()
    log.install()
    supervisor = Supervisor(settings, policy, environ=environ, log=log)
    if supervisor.start():
        announce(supervisor)
    supervisor.supervise()
    return 0
