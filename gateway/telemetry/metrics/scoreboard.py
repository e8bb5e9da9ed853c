"""Everything the processes of one gateway share: a slot for each, with its counts and its state, and endpoint labels.

The decision: the supervisor makes the scoreboard before the first fork and never talks to its children about it; each
process writes its own slot, and the ops process reads all of them. So readiness and metrics need no pipe, no lock
and no answer from a busy worker, and outlive the death of any of them. Each cell has one writer at a time: a slot is
written by the process that took it, and by the supervisor only before and after that process.
"""

from __future__ import annotations

import enum
import mmap
from dataclasses import dataclass
from typing import Final

from gateway.telemetry.metrics.counters import Region
from gateway.telemetry.metrics.endpoint_labels import EndpointLabels
from gateway.telemetry.metrics.families import OF_A_LIFE

_PID, _STATE, _GENERATION, _STORE_AWAY, _REPLICAS, _INFLIGHT_LIMIT, _CPU_US, _LEDGER, _MARK = *range(8), 11
_SEAT_CELLS: Final = _MARK + 3
"""Layout of a slot's status: one int64 for each, four for the ledger's health and three for the mark."""

_OTHERS: Final = 4  # slots before the workers'


class State(enum.IntEnum):
    """Where a process stands in its life; fresh memory reads as STARTING."""

    STARTING = 0
    READY = 1
    DRAINING = 2
    STOPPED = 3


@dataclass(frozen=True, slots=True)
class Readiness:
    """What `/readyz` tells: `ready`, `starting` or `draining`, the policy in force, and the workers."""

    status: str
    policy_generation: int
    workers_ready: int
    workers_total: int


class ProcessSlot:
    """The place of one process: its region of counters, its pid, its state, its policy generation."""

    def __init__(self, region: Region, status: memoryview) -> None:
        """Lay the slot over its region and its `_SEAT_CELLS` cells of status."""
        self.region: Final = region
        self._status = status

    def take(self, pid: int) -> None:
        """Enter a new process: it is starting, with no policy yet."""
        self._status[_GENERATION] = 0
        self._status[_STORE_AWAY] = 0
        self._status[_STATE] = State.STARTING
        for cell in range(_MARK, _SEAT_CELLS):
            self._status[cell] = 0
        self._status[_PID] = pid

    def vacate(self, *, cpu_us: int = 0) -> None:
        """Say that the process is gone (for the supervisor, once it has reaped it); its counts stay.

        `cpu_us` is the CPU time that it used, in microseconds.
        """
        self._status[_STATE] = State.STOPPED
        self._status[_CPU_US] += cpu_us
        self._status[_PID] = 0
        for family in OF_A_LIFE:
            self.region.zero(family.name)

    @property
    def pid(self) -> int:
        """Process id; 0 where nobody sits."""
        return int(self._status[_PID])

    @property
    def state(self) -> State:
        """State of the process as it last said itself."""
        return State(self._status[_STATE])

    @state.setter
    def state(self, state: State) -> None:
        self._status[_STATE] = state

    @property
    def generation(self) -> int:
        """Generation of the policy in force in this process, from 1; 0 before the first."""
        return int(self._status[_GENERATION])

    @generation.setter
    def generation(self, generation: int) -> None:
        self._status[_GENERATION] = generation

    @property
    def is_store_away(self) -> bool:
        """Whether this process does without the shared store of state just now."""
        return bool(self._status[_STORE_AWAY])

    @is_store_away.setter
    def is_store_away(self, is_away: bool) -> None:
        self._status[_STORE_AWAY] = int(is_away)

    @property
    def replicas(self) -> int:
        """How many gateways this process knows of that share the store of state, itself among them; 0: none yet."""
        return int(self._status[_REPLICAS])

    @replicas.setter
    def replicas(self, replicas: int) -> None:
        self._status[_REPLICAS] = replicas

    @property
    def inflight_limit(self) -> int:
        """How many exchanges this process may have open at once."""
        return int(self._status[_INFLIGHT_LIMIT])

    @inflight_limit.setter
    def inflight_limit(self, limit: int) -> None:
        self._status[_INFLIGHT_LIMIT] = limit

    @property
    def mark(self) -> memoryview:
        """Where this process marks what it is writing to its journal (ledger/journal.py)."""
        return self._status[_MARK:_SEAT_CELLS]

    @property
    def ledger_health(self) -> memoryview:
        """What the ledger process says of itself (ledger_health.py); it outlives the process."""
        return self._status[_LEDGER:_MARK]

    @property
    def past_cpu_us(self) -> int:
        """CPU time in microseconds of all processes that sat here and are gone."""
        return int(self._status[_CPU_US])

    def close(self) -> None:
        """Let go of the memory."""
        self._status.release()
        self.region.close()


class Scoreboard:
    """The slots of all processes of a gateway, and the endpoint labels that they share."""

    def __init__(self, *, workers: int) -> None:
        """Make the shared memory for `workers` workers; before the first fork."""
        self._memory = mmap.mmap(-1, (workers + _OTHERS) * _SEAT_CELLS * 8)
        self._status = memoryview(self._memory).cast("q")
        self.slots: Final = tuple(self._slot(number) for number in range(workers + _OTHERS))
        self.supervisor, self.ops, self.ledger, self.policy, *_ = self.slots
        self.workers: Final = self.slots[_OTHERS:]
        self.endpoints: Final = EndpointLabels()

    def _slot(self, number: int) -> ProcessSlot:
        first = number * _SEAT_CELLS
        return ProcessSlot(Region(), self._status[first : first + _SEAT_CELLS])

    def generation(self) -> int:
        """Return the policy generation that every ready worker has reached; 0 where none is ready.

        While all drain, what they go by still: a roll-out takes no policy away.
        """
        for state in (State.READY, State.DRAINING):
            reached = [slot.generation for slot in self.workers if slot.state is state]
            if reached:
                return min(reached)
        return 0

    def has_store(self) -> bool:
        """Return whether every ready worker has the state of limits."""
        return not any(slot.is_store_away for slot in self.workers if slot.state is State.READY)

    def replicas(self) -> int:
        """Return how many gateways share the state of limits, as far as workers have heard."""
        return max((slot.replicas for slot in self.workers if slot.state is State.READY), default=0) or 1

    def inflight_limit(self) -> int:
        """Return how many exchanges the ready workers may have open at once, all together."""
        return sum(slot.inflight_limit for slot in self.workers if slot.state is State.READY)

    def count(self, state: State) -> int:
        """Return how many workers are in a state."""
        return sum(slot.state is state for slot in self.workers)

    def readiness(self) -> Readiness:
        """Return whether requests should be sent here now; the supervisor's draining speaks for all."""
        ready = self.count(State.READY)
        return Readiness(self._readiness_status(ready), self.generation(), ready, len(self.workers))

    def _readiness_status(self, ready: int) -> str:
        if self.supervisor.state in {State.DRAINING, State.STOPPED}:
            return "draining"
        if ready and self.supervisor.state is State.READY:
            return "ready"
        return "draining" if self.count(State.DRAINING) and not ready else "starting"

    def close(self) -> None:
        """Give this process's mappings back; nothing here may be used afterwards."""
        for slot in self.slots:
            slot.close()
        self._status.release()
        self._memory.close()
        self.endpoints.close()
