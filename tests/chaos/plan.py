"""Which faults strike when: a schedule drawn from a seed. Pure: the same seed, length and site give the same schedule.

The decision it carries: faults of different resources (a gateway, Redis, the database, the origin, the policy) may
overlap, those of one resource follow each other, and all are over before the end, so that what must hold afterwards
has a moment from which it is counted.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_SECONDS: Final = 4.0
"""Before the first fault: callers have begun, and every budget has a sum."""
QUIET_SECONDS: Final = 4.0
"""Between the last fault's end and the end of the schedule."""
PAUSES: Final = (0.5, 4.5)
"""Between the beginnings of two faults, in seconds."""
RECOVERY_SECONDS: Final = 3.0
"""Between two faults of one resource."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What a run is drawn from: the seed, how long callers and faults go on, and a caller's mean pause."""

    seed: int
    seconds: float
    pause_seconds: float
    without: str = ""
    """Leaves out the faults whose kind, or line to the emulator, contains one of these texts, with commas between."""

    def leaves_out(self, name: str) -> bool:
        """Say whether a fault is left out."""
        return any(text in name for text in self.without.split(",") if text)


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A kind of fault: how often it is drawn, and the least and the most seconds that it lasts (0: a moment)."""

    weight: int
    least_seconds: float = 0.0
    most_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a schedule. `choice` decides whatever else is to be chosen (which worker, which keys)."""

    at_seconds: float
    kind: str
    resource: str
    seconds: float
    choice: int


GATEWAY: Final[Mapping[str, FaultKind]] = MappingProxyType(
    {
        "kill_worker": FaultKind(8),
        "kill_ledger": FaultKind(4),
        "kill_ops": FaultKind(1),
        "kill_policy": FaultKind(1),
        "kill_supervisor": FaultKind(2),
        "kill_gateway": FaultKind(3),
        "restart_gateway": FaultKind(2),
        "stop_worker": FaultKind(3, 0.5, 4),
        "stop_ledger": FaultKind(2, 1, 6),
        "stop_supervisor": FaultKind(1, 1, 4),
        "stop_gateway": FaultKind(2, 1, 5),
        "full_disk": FaultKind(3, 1, 5),
    }
)
REDIS: Final[Mapping[str, FaultKind]] = MappingProxyType(
    {
        "redis_refused": FaultKind(3, 0.5, 5),
        "redis_black_hole": FaultKind(2, 0.5, 5),
        "redis_frozen": FaultKind(3, 0.5, 5),
        "redis_slow": FaultKind(2, 1, 5),
        "redis_flapping": FaultKind(2, 1, 4),
        "redis_garbage": FaultKind(1, 0.5, 2),
        "redis_flushed": FaultKind(3),
        "redis_restarted_empty": FaultKind(2, 0.2, 3),
        "redis_restored": FaultKind(3, 3, 15),
        "redis_evicted": FaultKind(2),
        "redis_full": FaultKind(1, 1, 4),
    }
)
POSTGRES: Final[Mapping[str, FaultKind]] = MappingProxyType(
    {
        "database_restarted": FaultKind(2, 0.2, 4),
        "database_refused": FaultKind(2, 1, 5),
        "database_frozen": FaultKind(2, 1, 8),
        "database_black_hole": FaultKind(1, 1, 5),
        "database_locked": FaultKind(1, 1, 5),
    }
)
SQLITE: Final[Mapping[str, FaultKind]] = MappingProxyType({"database_locked": FaultKind(2, 1, 8)})
ORIGIN: Final[Mapping[str, FaultKind]] = MappingProxyType(
    {
        "origin_refused": FaultKind(2, 0.5, 3),
        "origin_frozen": FaultKind(2, 0.5, 4),
        "origin_black_hole": FaultKind(1, 0.5, 3),
        "origin_slow": FaultKind(1, 1, 4),
        "origin_flapping": FaultKind(2, 1, 4),
        "origin_failing": FaultKind(2, 1, 5),
        "origin_busy": FaultKind(2, 1, 5),
        "origin_cutting": FaultKind(2, 1, 4),
        "origin_losing_answers": FaultKind(2, 0.5, 3),
        "origin_behind": FaultKind(2, 1, 5),
    }
)
POLICY: Final[Mapping[str, FaultKind]] = MappingProxyType(
    {
        "policy_broken": FaultKind(1, 1, 4),
        "policy_emptied": FaultKind(1, 1, 4),
        "policy_key_revoked": FaultKind(2, 6, 9),
        "policy_rewritten": FaultKind(1),
    }
)


def resources_of(*, gateways: int, is_shared: bool) -> dict[str, Mapping[str, FaultKind]]:
    """Return the resources of a site, and the kinds of faults that may strike each.

    `is_shared`: it has Redis and PostgreSQL; otherwise SQLite alone.
    """
    found: dict[str, Mapping[str, FaultKind]] = {f"gateway-{number}": GATEWAY for number in range(1, gateways + 1)}
    if is_shared:
        found["redis"] = REDIS
    found["database"] = POSTGRES if is_shared else SQLITE
    return {**found, "origin": ORIGIN, "policy": POLICY}


def schedule(seed: int, seconds: float, resources: Mapping[str, Mapping[str, FaultKind]]) -> list[Fault]:
    """Return the faults of a run that lasts so long, in the order in which they begin."""
    draw = random.Random(f"{seed} {sorted(resources)}")  # noqa: S311 - a schedule, not a secret
    free_at = dict.fromkeys(resources, FIRST_SECONDS)
    faults: list[Fault] = []
    now = FIRST_SECONDS
    while now < seconds - QUIET_SECONDS:
        fault = _draw(draw, now, resources, free=[name for name, at in free_at.items() if at <= now])
        if fault is not None and now + fault.seconds <= seconds - QUIET_SECONDS:
            faults.append(fault)
            free_at[fault.resource] = now + fault.seconds + RECOVERY_SECONDS
        now += draw.uniform(*PAUSES)
    return faults


def _draw(
    draw: random.Random, now: float, resources: Mapping[str, Mapping[str, FaultKind]], *, free: list[str]
) -> Fault | None:
    """Return a fault of one of the free resources, each kind as often as its weight says; None where none is free."""
    drawable = [(name, kind) for name in free for kind in resources[name]]
    if not drawable:
        return None
    weights = [resources[name][kind].weight for name, kind in drawable]
    resource, kind = draw.choices(drawable, weights)[0]
    bounds = resources[resource][kind]
    seconds = draw.uniform(bounds.least_seconds, bounds.most_seconds)
    return Fault(round(now, 3), kind, resource, round(seconds, 3), draw.randrange(2**31))
