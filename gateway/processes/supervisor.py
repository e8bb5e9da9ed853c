"""Processes and signals: starting, ready, draining, stopped.

A small supervisor without threads or an event loop forks one ops process and the workers, and forks again what dies:
its memory is clean at every fork, and a scrape or a probe never waits for a busy worker. It does nothing that takes
long: another process follows the policy (policy.py). On SIGTERM readiness goes first, callers are still
accepted for the shutdown delay, then exchanges run out up to the drain timeout; the ledger process ends after the last
worker, so that every row is written. Signals that reach the whole group are the supervisor's alone
(platform/signals.py). A worker whose supervisor is gone stops listening and drains by itself, and no child keeps a
listener that is not its own: the gateway that follows has both ports at once.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from time import monotonic, time
from typing import TYPE_CHECKING, Final, Literal

import structlog

from gateway.config.access import Access
from gateway.config.reload import warn_of_access
from gateway.platform import signals
from gateway.platform.fd_limit import raise_descriptor_limit
from gateway.processes.ledger_watch import LedgerWatch
from gateway.processes.listeners import BoundSockets, listen
from gateway.processes.ops import serve_ops
from gateway.processes.policy import run_reloads
from gateway.processes.publisher import Publisher
from gateway.processes.shared import Shared
from gateway.processes.worker import Lifeline, run_worker
from gateway.proxy import exchange
from gateway.telemetry.metrics.families import POLICY_RELOAD_ERRORS, PROCESS_RESTARTS
from gateway.telemetry.metrics.meter import Meter
from gateway.telemetry.metrics.scoreboard import ProcessSlot, State
from gateway.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.config.policy_snapshot import PolicySnapshot
    from gateway.config.settings import Settings
    from gateway.telemetry.log.log import Log

_ROLES: Final = ("ops", "ledger", "policy", "worker")
_TICK_SECONDS: Final = 0.05
_FIRST_DELAY_SECONDS: Final = 0.1
_LONGEST_DELAY_SECONDS: Final = 5.0
_STEADY_SECONDS: Final = 10.0  # a process that lived so long did not fail at its start
_OPS_STOP_SECONDS: Final = 2.0
_LEDGER_STOP_SECONDS: Final = 15.0
_MICROSECONDS: Final = 1_000_000


@dataclass(slots=True)
class Child:
    """A slot and the process in it; `pid` 0 while it waits to be started again at `due_at` (monotonic seconds)."""

    slot: ProcessSlot
    role: Literal["ops", "ledger", "policy", "worker"]
    pid: int = 0
    started_at: float = 0.0
    due_at: float = 0.0
    delay: float = _FIRST_DELAY_SECONDS


class Supervisor:
    """The first process."""

    def __init__(self, settings: Settings, policy: PolicySnapshot, *, environ: Mapping[str, str], log: Log) -> None:
        """Bind both listeners; ListenError names what cannot be had. `environ`: teams' credentials may be there."""
        self._signals = signals.supervisor_signals()
        self._settings = settings
        self.listeners: Final = BoundSockets(settings)
        self._shared = Shared(settings, log, environ)
        self._scoreboard = self._shared.scoreboard
        self._scoreboard.supervisor.take(os.getpid())
        self._lifeline = Lifeline()
        self._ops, self._ledger = Child(self._scoreboard.ops, "ops"), Child(self._scoreboard.ledger, "ledger")
        self._reloader = Child(self._scoreboard.policy, "policy") if settings.policy is not None else None
        reloaders = [self._reloader] if self._reloader is not None else []
        self._children = [
            self._ops,
            self._ledger,
            *reloaders,
            *(Child(slot, "worker") for slot in self._scoreboard.workers),
        ]
        self._stops = 0  # how often it was asked to stop
        self._is_ending = False
        self.exit_code = os.EX_OK
        self._events = structlog.get_logger()
        self._meter = Meter(self._scoreboard.supervisor.region, self._scoreboard.endpoints, emit=log.exchange)
        log.count_to(self._meter.count_dropped)
        region = self._scoreboard.supervisor.region
        region.claim_spare(POLICY_RELOAD_ERRORS.name, ())  # 0 from the start
        self._restarts = {role: region.claim_spare(PROCESS_RESTARTS.name, (role,)) for role in _ROLES}
        self._ledger_watch = LedgerWatch(self._scoreboard, self._shared.spool, keep_ledger=self._shared.keep_ledger)
        self._policy = policy
        self._publisher = Publisher(self._shared, region)
        self._publisher.publish(policy)

    def start(self) -> bool:
        """Start everything; False where it was stopped, or a worker died, before all were ready."""
        for child in self._children:
            self._fork(child)
        while (
            self._scoreboard.count(State.READY) < self._settings.workers
            or self._scoreboard.ledger.state is not State.READY
        ):
            self._tick()
            if self._stops:
                return False
        self._scoreboard.supervisor.state = State.READY
        self._events.info(
            "gateway_ready",
            address=self.listeners.address,
            ops=self.listeners.ops_address,
            workers=self._settings.workers,
            compiled=not (exchange.__file__ or "").endswith(".py"),
        )
        return True

    def supervise(self) -> None:
        """Keep the processes running until a stop has run its course."""
        while not self._stops or any(child.pid for child in self._children if child.role == "worker"):
            self._tick()
        if not self._ledger.pid and not self.exit_code:
            self._fork(self._ledger)
        self._end(self._ledger, _LEDGER_STOP_SECONDS)  # it writes down what the workers have told last
        if self._reloader is not None:
            self._end(self._reloader, _OPS_STOP_SECONDS)
        self._scoreboard.supervisor.state = State.STOPPED
        self._end(self._ops, _OPS_STOP_SECONDS)  # probes are answered to the end
        self._shared.spool.close()
        self._events.info("gateway_stopped")

    # -- events -----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Wait for a signal, for a moment; act on it and on what is due."""
        for number in self._signals.wait(_TICK_SECONDS):
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop()
            elif number == signal.SIGHUP:
                self._reload()
        self._ledger_watch.look(monotonic())
        self._reap()
        if self.exit_code:
            self._signal_workers()  # again, which hurries them: nothing is waited for that cannot be recorded
        for child in self._children:
            if not child.pid and self._is_wanted(child) and monotonic() >= child.due_at:
                self._fork(child)

    def _is_wanted(self, child: Child) -> bool:
        """Say whether a process that has died is started again; while workers drain, the others still are."""
        return not self._stops or (child.role != "worker" and not self.exit_code)

    def _stop(self) -> None:
        self._stops += 1
        self._scoreboard.supervisor.state = State.DRAINING
        self._shared.give_up_ledger()  # the next gateway may start while this one drains
        self._events.info("gateway_draining", asked=self._stops)
        self._signal_workers()

    def _signal_workers(self) -> None:
        for child in self._children:
            if child.pid and child.role == "worker":
                os.kill(child.pid, signals.STOP)

    def _reload(self) -> None:
        if self._reloader is None:
            self._events.warning("policy_reload_skipped", reason="there is no policy file")
        elif self._reloader.pid:  # one that starts reads the file anyway
            os.kill(self._reloader.pid, signals.RELOAD)

    def _reap(self) -> None:
        """Bury every child that has ended. The first process of a container is left others' orphans: those, too."""
        seated = {child.pid: child for child in self._children if child.pid}
        while ended := _ended_child():
            pid, code, cpu_us = ended
            if pid in seated:
                self._bury(seated[pid], code, cpu_us=cpu_us)

    def _bury(self, child: Child, code: int, *, cpu_us: int) -> None:
        if child.role == "worker":
            self._ledger_watch.count_lost(self._shared.settle_with_dead(child.slot))
        child.slot.vacate(cpu_us=cpu_us)
        is_starting = self._scoreboard.supervisor.state is State.STARTING
        if child.role == "ledger" and code == os.EX_CONFIG and is_starting:  # over a newer release's database
            self.exit_code = code
            self._stop()
        if self._is_wanted(child) and not self._is_ending:
            steady = monotonic() - child.started_at > _STEADY_SECONDS
            child.delay = _FIRST_DELAY_SECONDS if steady else min(child.delay * 2, _LONGEST_DELAY_SECONDS)
            child.due_at = monotonic() + child.delay
            self._scoreboard.supervisor.region.cells[self._restarts[child.role]] += 1
            self._events.error("process_died", pid=child.pid, code=code, role=child.role, again_in=child.delay)
        child.pid = 0

    def _end(self, child: Child, seconds: float) -> None:
        """End a process that workers need, after the last of them."""
        self._is_ending = True
        if child.pid:
            os.kill(child.pid, signals.STOP)
        deadline = monotonic() + seconds
        while child.pid:
            self._reap()
            if child.pid and monotonic() > deadline:
                os.kill(child.pid, signal.SIGKILL)
            self._signals.wait(_TICK_SECONDS)

    # -- processes --------------------------------------------------------------------------------------------------

    def _fork(self, child: Child) -> None:
        child.started_at = monotonic()
        signals.block_in_fork()
        child.pid = os.fork()
        if child.pid == 0:
            self._be(child)
        signals.unblock_in_parent()
        self._events.info("process_started", role=child.role, pid=child.pid)

    def _be(self, child: Child) -> None:
        """Become the child; never returns."""
        code = 1
        try:
            self._shared.give_up_ledger()  # the supervisor's alone
            signals.ignore_in_child()
            self._signals.close()
            self._lifeline.hold_end()
            child.slot.take(os.getpid())
            self._shared.log.start_writer()
            code = self._work(child)
        except Exception:
            self._events.exception("process_failed")
            raise
        finally:
            self._shared.log.stop(1.0)
            os._exit(code)

    def _work(self, child: Child) -> int:
        """Do a child's work until it is asked to stop; return its exit code."""
        if child.role == "worker":
            host, port = self.listeners.reserved.getsockname()[:2]
            self.listeners.close()
            run_worker(self._shared, child.slot, listener=listen(host, port), lifeline=self._lifeline)
            return os.EX_OK
        meter = Meter(child.slot.region, self._scoreboard.endpoints, emit=self._shared.log.exchange)
        self._shared.log.count_to(meter.count_dropped)
        if child.role == "ops":
            self.listeners.reserved.close()
            spool_bytes, on_orphaned = self._shared.spool_bytes, self._lifeline.on_cut
            serve_ops(self.listeners.ops, self._scoreboard, spool_bytes=spool_bytes, on_orphaned=on_orphaned)
        elif child.role == "policy":
            self.listeners.close()
            run_reloads(self._shared, child.slot, self._policy, publisher=self._publisher)
        else:
            self.listeners.close()
            from gateway.processes.ledger import run_ledger  # noqa: PLC0415 (a database's libraries: 36 MB that others spare)

            return run_ledger(self._shared, child.slot, meter)
        return os.EX_OK


def _ended_child() -> tuple[int, int, int] | None:
    """Return process id, exit code and CPU microseconds of a child that has ended, None where there is none."""
    try:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
    except ChildProcessError:
        return None  # no child is left
    cpu_us = int((usage.ru_utime + usage.ru_stime) * _MICROSECONDS)
    return (pid, os.waitstatus_to_exitcode(status), cpu_us) if pid else None


def run(
    settings: Settings,
    policy: PolicySnapshot,
    *,
    environ: Mapping[str, str],
    log: Log,
    announce: Callable[[Supervisor], None],
) -> int:
    """Run the gateway until it is stopped; `announce` is called once all workers are ready. Returns the exit code.

    `environ` holds the variables that a policy may name. ListenError where a listener cannot be bound.
    """
    raise_descriptor_limit()
    log.install()
    supervisor = Supervisor(settings, policy, environ=environ, log=log)
    structlog.get_logger().info("gateway_starting", version=VERSION, pid=os.getpid(), workers=settings.workers)
    warn_of_access(Access(policy.document, time()), path=settings.policy)
    if supervisor.start():
        announce(supervisor)
    supervisor.supervise()
    return supervisor.exit_code
