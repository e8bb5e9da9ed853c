"""Limits as the hot path reads them, and what callers are told of them.

The decisions it carries:

* Requests and bytes are counted by the generic cell rate algorithm: of each bucket only the moment is kept at which it
  would be full again ("tat", the theoretical arrival time). A call adds `interval` for each unit; it is granted while
  that moment is no further ahead than `span`. So granted = quota / window x t + burst, whatever the order of calls.
* A limit's name in the store says whose it is and what it counts, so that a reload keeps what was consumed, and a
  limit that begins to count something else begins anew.
* Fields are those of draft-ietf-httpapi-ratelimit-headers (11): `t` is when the next unit comes; on a refusal only the
  limits that refuse are told, with the same moment as Retry-After.
"""

from __future__ import annotations

from math import ceil
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from gateway.http.problem import Problem, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Unit = Literal["requests", "content-bytes", "concurrent-requests"]

REQUESTS: Final = 0
BYTES: Final = 1
CONCURRENT: Final = 2
_KIND_OF: Final = MappingProxyType({"requests": REQUESTS, "content-bytes": BYTES, "concurrent-requests": CONCURRENT})

LEASE_SECONDS: Final = 30.0
"""How long a slot is held for a process that says nothing any more."""


class Limit:
    """One limit of one owner. Times in seconds.

    `interval`: what one unit takes to come back; `span`: what a whole bucket takes. Both 0 for concurrency, whose
    `burst` is how many may be under way. `store_name` is the same for the same owner, name and unit.
    """

    def __init__(  # noqa: PLR0913 (one row of the policy file)
        self,
        name: str,
        owner: str,
        unit: Unit,
        *,
        quota: int,
        window: float,
        burst: int | None = None,
        max_wait: float = 0.0,
        shadow: bool = False,
    ) -> None:
        self.name: Final = name
        self.owner: Final = owner
        self.unit: Final = unit
        self.kind: Final = _KIND_OF[unit]
        self.quota: Final = quota
        self.window: Final = window
        self.burst: Final = burst if burst is not None else quota
        self.max_wait: Final = max_wait
        self.shadow: Final = shadow
        self.interval: Final = window / quota if self.kind != CONCURRENT else 0.0
        self.span: Final = self.interval * self.burst
        self.store_name: Final = f"{owner}/{name}/{unit}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Limit) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[str, int, float, int, float, bool]:
        return self.store_name, self.quota, self.window, self.burst, self.max_wait, self.shadow

    def share(self, parts: int) -> Limit:
        """Return this limit for one of so many that cannot hear of each other."""
        if parts <= 1:
            return self
        if self.kind == CONCURRENT:
            mine = max(1, self.quota // parts)
            return Limit(self.name, self.owner, self.unit, quota=mine, window=0.0, shadow=self.shadow)
        return Limit(
            self.name,
            self.owner,
            self.unit,
            quota=self.quota,
            window=self.window * parts,
            burst=max(1, self.burst // parts),
            max_wait=self.max_wait,
            shadow=self.shadow,
        )


class LimitSet:
    """The limits that one class of a principal's calls meets, all or nothing.

    `tag` groups what has to live on one node of a cluster. `names` are what callers read, each one unlike the others.
    """

    def __init__(self, tag: str, limits: Iterable[Limit]) -> None:
        self.tag: Final = tag
        self.limits: Final = tuple(limits)
        self.names: Final = _names(self.limits)
        self.policy_line: Final = self._policy_line()
        self.told: Final = tuple(rank for rank, limit in enumerate(self.limits) if not limit.shadow)
        self.line_form: Final = self._line_form()
        self.has_bytes: Final = any(limit.kind == BYTES for limit in self.limits)
        self.has_leases: Final = any(limit.kind == CONCURRENT for limit in self.limits)
        self.waits: Final = any(limit.kind == CONCURRENT and limit.max_wait > 0 for limit in self.limits)
        self._parts = 1
        self._share: LimitSet = self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LimitSet) and (self.tag, self.limits) == (other.tag, other.limits)

    def __hash__(self) -> int:
        return hash((self.tag, self.limits))

    def _policy_line(self) -> bytes:
        told = [
            _policy_of(limit, name) for limit, name in zip(self.limits, self.names, strict=True) if not limit.shadow
        ]
        return b"RateLimit-Policy: %b\r\n" % ", ".join(told).encode() if told else b""

    def _line_form(self) -> bytes:
        """Return RateLimit with room for what is left of each limit that is told, and for its seconds."""
        limits = ((self.names[rank], self.limits[rank].kind) for rank in self.told)
        items = (b'"%b";r=%%d%b' % (name.encode(), b"" if kind == CONCURRENT else b";t=%d") for name, kind in limits)
        return b"RateLimit: %b\r\n" % b", ".join(items)

    def share(self, parts: int) -> LimitSet:
        """Return these limits for one of so many that cannot hear of each other."""
        if parts != self._parts:  # remembered: it changes when a gateway joins or leaves, and is asked at each request
            self._parts = parts
            self._share = LimitSet(self.tag, [limit.share(parts) for limit in self.limits]) if parts > 1 else self
        return self._share


def _names(limits: Sequence[Limit]) -> tuple[str, ...]:
    """Return the names as callers read them: a team's limit that is called like the key's says whose it is."""
    names: list[str] = []
    for limit in limits:
        name = limit.name
        while name in names:  # twice where the key has a limit `team.x`, too
            name = f"{limit.owner.partition('/')[0]}.{name}"
        names.append(name)
    return tuple(names)


def _policy_of(limit: Limit, name: str) -> str:
    if limit.kind == CONCURRENT:
        return f'"{name}";q={limit.quota};qu="{limit.unit}"'
    unit = f';qu="{limit.unit}"' if limit.kind == BYTES else ""
    return f'"{name}";q={limit.quota}{unit};w={int(limit.window)}'


NO_LIMITS: Final = LimitSet("", ())


class Decision:
    """What became of one request's asking.

    `delay`: seconds that a granted call waits for its turn. For each limit of the set, `remaining` has what is left and
    `waits` the seconds until there is one unit more (bytes: until all is there again; slots: -1, nobody knows).
    `refused_by` is the rank of the first limit that said no, -1 where granted; `retry_after` the seconds until all of
    them would say yes. `shadowed` are the ranks of limits that would have said no if they were enforced. `over_budget`
    is the rank of the first budget without room (-1: none is), of which `used_ns` are spent or held (-1: that is not
    known) in the period that began at `begun_at`.
    """

    __slots__ = (
        "begun_at",
        "delay",
        "granted",
        "over_budget",
        "refused_by",
        "remaining",
        "retry_after",
        "shadowed",
        "used_ns",
        "waits",
    )

    def __init__(self) -> None:
        self.granted = True
        self.delay = 0.0
        self.refused_by = -1
        self.over_budget = -1
        self.used_ns = 0
        self.begun_at = 0
        self.retry_after = 0.0
        self.remaining: list[int] = []
        self.waits: list[float] = []
        self.shadowed: list[int] = []


def granted_lines(limits: LimitSet, verdict: Decision) -> tuple[bytes, ...]:
    """Return RateLimit-Policy and RateLimit, with their line ends, for an answer to a granted call."""
    if not limits.told:
        return ()
    figures: list[int] = []
    for rank in limits.told:
        figures.append(verdict.remaining[rank])
        if limits.limits[rank].kind != CONCURRENT:
            wait = verdict.waits[rank]
            seconds = int(wait)
            figures.append(seconds + 1 if wait > seconds else seconds)
    return limits.policy_line, limits.line_form % tuple(figures)


def quota_exceeded(limits: LimitSet, verdict: Decision) -> Problem:
    """Return the refusal of a call beyond its quota."""
    limit, name = limits.limits[verdict.refused_by], limits.names[verdict.refused_by]
    seconds = max(1, ceil(verdict.retry_after))
    period = f" in {int(limit.window)} s" if limit.window else " at once"
    return refusal(
        "quota_exceeded",
        f"The limit {name} of {limit.owner.replace('/', ' ')} is spent: {limit.quota} {limit.unit}{period}; "
        f"try again in {seconds} s.",
        (
            (b"retry-after", b"%d" % seconds),
            (b"ratelimit-policy", limits.policy_line[len(b"RateLimit-Policy: ") : -2]),
            (b"ratelimit", b'"%b";r=0;t=%d' % (name.encode(), seconds)),
        ),
    )
