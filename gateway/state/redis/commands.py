"""What is sent to the store about limits and holds, and how its answers read: keys, packed commands, verdicts.

The decisions: all keys of one call carry one hash tag, so that a cluster keeps them on one node; and what stays the
same for a set of limits is packed once (`Plan`), since packing 20 words anew would cost more than all the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.policy.budget import period_end
from gateway.policy.quota import BYTES, CONCURRENT, LEASE_SECONDS, REQUESTS, Decision
from gateway.state.redis.budget_counters import hash_tag, purse_key
from gateway.state.redis.scripts import ASK, MOVE, RENEW, Script

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from gateway.policy.budget import Budget, Calendar
    from gateway.policy.quota import Limit, LimitSet
    from gateway.state.memory.worker_budgets import Reservation

REPLICA_SECONDS: Final = 15
REPLICAS_KEY: Final = b"fgw:{replicas}"
MOST_LEASES_A_COMMAND: Final = 500
_MICROSECOND: Final = 1e-6
_DAY_SECONDS: Final = 86_400
_MOST_PLANS: Final = 2_048
_HEAD: Final = 7
"""Numbers of a verdict before those of its limits."""

NO_BUDGETS: Final[tuple[Budget, ...]] = ()


def bulk(word: bytes) -> bytes:
    """Return one word as RESP writes it."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


def pack(words: Iterable[bytes]) -> bytes:
    """Return words one behind the other as RESP writes them."""
    return b"".join(map(bulk, words))


class Command:
    """One command, packed but for its head: how many words it has, and the script that it runs, if it runs one."""

    __slots__ = ("rest", "script", "words")

    def __init__(self, rest: bytes, words: int, script: Script | None = None) -> None:
        self.rest: Final = rest
        self.words: Final = words
        self.script: Final = script

    def packed(self, *, by_text: bool = False) -> bytes:
        """Return what goes over the wire; `by_text` brings the script along, for a store that has forgotten it."""
        if self.script is None:
            return b"*%d\r\n%b" % (self.words, self.rest)
        head = self.script.by_text if by_text else self.script.by_digest
        return b"*%d\r\n%b%b" % (self.words + 2, head, self.rest)


def plain(*words: bytes) -> Command:
    """Return a command that runs no script."""
    return Command(pack(words), len(words))


def scripted(script: Script, keys: Collection[bytes], arguments: Collection[bytes]) -> Command:
    """Return a call of a script."""
    return Command(pack((b"%d" % len(keys), *keys, *arguments)), 1 + len(keys) + len(arguments), script)


class Plan:
    """The commands about one set of limits and budgets, for callers with a key or for one address without."""

    __slots__ = (
        "_after",
        "_before",
        "_buckets",
        "_day",
        "_purses",
        "_words",
        "budgets",
        "has_shadow",
        "limits",
        "slots",
        "width",
    )

    def __init__(self, limits: LimitSet, address: str, budgets: tuple[Budget, ...] = NO_BUDGETS) -> None:
        tag = hash_tag(f"{limits.tag}|{address}")
        keys = [f"fgw:{{{tag}}}:{limit.store_name}".encode() for limit in limits.limits]
        rows = [word for limit in limits.limits for word in _row(limit)]
        self.limits: Final = limits  # held, so that its identity stays its own
        self.budgets: Final = budgets
        self.width: Final = len(keys)
        self.has_shadow: Final = any(limit.shadow for limit in limits.limits)
        self.slots: Final = tuple(
            (place, keys[place]) for place, limit in enumerate(limits.limits) if limit.kind == CONCURRENT
        )
        """Place and key of each limit on concurrency."""
        self._buckets: Final = tuple(
            (place, keys[place], limit) for place, limit in enumerate(limits.limits) if limit.kind != CONCURRENT
        )
        keys += [purse_key(budget) for budget in budgets]
        self._before: Final = pack((b"%d" % len(keys), *keys))
        self._after: Final = pack((b"%d" % len(budgets), *rows))
        self._words: Final = 3 + len(keys) + len(rows) + (2 + 3 * len(budgets) if budgets else 0)
        self._day = -1  # in which `_purses` is right
        self._purses = b""

    def ask(self, lease: bytes) -> Command:
        """Return the question of a request that holds nothing of a budget."""
        return Command(b"%b$%d\r\n%b\r\n%b" % (self._before, len(lease), lease, self._after), self._words, ASK)

    def ask_hold(self, lease: bytes, holder: bytes, estimate_ns: int, *, calendar: Calendar, now: float) -> Command:
        """Return the question of a request that is to hold an estimate; `now` in seconds since the epoch."""
        if int(now // _DAY_SECONDS) != self._day:
            self._day = int(now // _DAY_SECONDS)
            self._purses = pack([word for budget in self.budgets for word in _purse_row(budget, calendar, now)])
        head = b"%b$%d\r\n%b\r\n%b" % (self._before, len(lease), lease, self._after)
        return Command(head + bulk(holder) + bulk(b"%d" % estimate_ns) + self._purses, self._words, ASK)

    def undo(self, spared: Collection[int]) -> Command | None:
        """Return what gives a unit back to each limit on requests, but for those at the places that took none."""
        return self._move(-1, REQUESTS, spared)

    def charge(self, count: int) -> Command | None:
        """Return what counts so many bytes against each limit on bytes."""
        return self._move(count, BYTES, ())

    def _move(self, units: int, kind: int, spared: Collection[int]) -> Command | None:
        moved = [(key, limit) for place, key, limit in self._buckets if limit.kind == kind and place not in spared]
        arguments = [word for _, limit in moved for word in (b"%d" % units, *_reach(limit))]
        return scripted(MOVE, [key for key, _ in moved], arguments) if moved else None


class Plans:
    """The plans in use; bounded by beginning anew, since a reload leaves old ones behind and addresses are many."""

    def __init__(self) -> None:
        self._plans: dict[tuple[int, str, int], Plan] = {}  # by identity, since to compare sets is dear

    def plan(self, limits: LimitSet, address: str, hold: Reservation | None = None) -> Plan:
        """Return the plan for a set of limits, and for the budgets of a hold."""
        budgets = hold.budgets if hold is not None else NO_BUDGETS
        key = (id(limits), address, id(budgets))
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            found = self._plans[key] = Plan(limits, address, budgets)
        return found


def _purse_row(budget: Budget, calendar: Calendar, now: float) -> tuple[bytes, ...]:
    start = calendar.start(budget.period, now)
    return (b"%d" % budget.limit_ns, b"%d" % start, b"%d" % period_end(budget.period, start))


def _number(number: float) -> bytes:
    return b"%.17g" % number


def _ahead(limit: Limit) -> float:
    return limit.max_wait if limit.kind == REQUESTS else limit.window


def _row(limit: Limit) -> tuple[bytes, ...]:
    shadow = b"1" if limit.shadow else b"0"
    if limit.kind == CONCURRENT:
        return (b"%d" % limit.kind, b"%d" % limit.burst, _number(LEASE_SECONDS), b"0", shadow)
    return (b"%d" % limit.kind, _number(limit.interval), _number(limit.span), _number(_ahead(limit)), shadow)


def _reach(limit: Limit) -> tuple[bytes, bytes, bytes]:
    """Return a limit's interval, span, and how much further ahead its moment may lie."""
    return _number(limit.interval), _number(limit.span), _number(_ahead(limit))


def free(key: bytes, leases: Collection[bytes]) -> Command:
    """Return what gives slots of one limit back."""
    return plain(b"ZREM", key, *leases)


def renew(key: bytes, leases: Collection[bytes]) -> Command:
    """Return what holds slots of one limit for another while, also where the store has lost them."""
    return scripted(RENEW, (key,), (_number(LEASE_SECONDS), *leases))


def room_probe() -> Command:
    """Return a write that a store without memory refuses: it lets a script pass that deletes something first."""
    return plain(b"SET", REPLICAS_KEY + b":probe", b"1", b"EX", b"%d" % REPLICA_SECONDS)


def beat(replica: bytes) -> Command:
    """Return what says that a gateway lives; the answer is how many do."""
    return scripted(RENEW, (REPLICAS_KEY,), (b"%d" % REPLICA_SECONDS, replica))


def read_verdict(answer: object, width: int) -> Decision:
    """Return the verdict on so many limits; ValueError where the answer is none."""
    return read_answer(answer, width, 0)[0]


def read_answer(answer: object, width: int, purses: int) -> tuple[Decision, list[int]]:
    """Return the verdict, and where it holds something start, edition and since of each purse.

    ValueError where the answer is none to a question about so many limits and budgets.
    """
    if not isinstance(answer, bytes):
        raise ValueError("no text")  # noqa: TRY004 (what the store said is no value of this question's)
    numbers = [int(word) for word in answer.split()]
    end = _HEAD + 3 * width
    due = end + (3 * purses if numbers[:1] == [1] else 0)
    if len(numbers) != due or not -1 <= numbers[2] < width or not -1 <= numbers[4] < max(purses, 1):
        raise ValueError("an answer to another question")
    told = numbers[_HEAD:end]
    verdict = Decision()
    verdict.granted = numbers[0] == 1
    verdict.delay = numbers[1] * _MICROSECOND
    verdict.refused_by = numbers[2]
    verdict.retry_after = numbers[3] * _MICROSECOND
    verdict.over_budget, verdict.used_ns, verdict.begun_at = numbers[4], numbers[5], numbers[6]
    verdict.remaining = told[::3]
    verdict.waits = [wait * _MICROSECOND if wait >= 0 else -1.0 for wait in told[1::3]]
    verdict.shadowed = [place for place, beyond in enumerate(told[2::3]) if beyond]
    return verdict, numbers[end:]
