"""What this process has done to each budget's purse in the store: its registers, stated whole and never as a change.

The decisions it carries:

* A statement that was lost, came late or is said twice does no harm, so that nothing is owed one by one: what happened
  while the store was away is in the next statement. The books are as many as there are budgets.
* A purse that was lost begins a new edition, which the ledger fills in up to a second that it names (`since`). This
  process then states what it holds open, and what it settled from that second on, by its own clock, which is the one
  that stamped the ledger's rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gateway.policy.budget import Budget
    from gateway.state.memory.worker_budgets import Reservation

RECENT_SECONDS: Final = 60
"""How far back a process remembers what it settled, second by second; `since` lies less far back."""

MOST_TOGETHER: Final = 200
"""Purses in one statement: the store runs it in a millisecond or two, and nothing beside it."""


class BudgetCounter:
    """What one process has to say of one purse, in the period that began at `start`; nanodollars.

    `edition` 0: the purse has not been heard of yet. `granted` by asks of this edition, `net` what is held beside that
    (less than nothing once holds were given back), `spent` and `jobs` what was added to these sums; `still_held`: what
    this process holds, whichever edition granted it. `version` rises with
    each change; `acknowledged` is the last one that the store has.
    """

    __slots__ = (
        "acknowledged",
        "edition",
        "granted",
        "jobs",
        "key",
        "name",
        "net",
        "recent",
        "spent",
        "start",
        "still_held",
        "tag",
        "touched_at",
        "version",
    )

    def __init__(self, budget: Budget, start: int) -> None:
        self.name: Final = budget.store_name
        self.tag: Final = budget.tag
        self.key: Final = purse_key(budget)
        self.start: Final = start
        self.edition = 0
        self.granted = 0
        self.net = 0
        self.spent = 0
        self.jobs = 0
        self.still_held = 0
        self.recent: dict[int, list[int]] = {}
        self.touched_at = 0
        self.version = 0
        self.acknowledged = 0

    def grant(self, amount_ns: int) -> None:
        """Note what an ask has been granted."""
        self.granted += amount_ns
        self.still_held += amount_ns

    def change(self, second: int, *, freed: int, spent: int, jobs: int) -> None:
        """Give back what was held, and add to what is spent and to what jobs hold; `second` by the wall clock."""
        self.still_held -= freed
        self.net -= freed
        self.spent += spent
        self.jobs += jobs
        self.version += 1
        self.touched_at = second
        found = self.recent.get(second)
        if found is None:
            self._fold(second - RECENT_SECONDS)
            found = self.recent[second] = [0, 0]
        found[0] += spent
        found[1] += jobs

    def _fold(self, oldest: int) -> None:
        """Put what is older than is asked for into one second, which no edition but the first asks for."""
        late = [second for second in self.recent if second <= oldest]
        if len(late) > 1:
            pairs = [self.recent.pop(second) for second in late]
            self.recent[oldest] = [sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)]

    def begin(self, edition: int, since: int) -> None:
        """State anew, in an edition of the purse that has not heard of this process."""
        told = [pair for second, pair in self.recent.items() if second >= since]
        self.edition = edition
        self.granted = 0
        self.net = self.still_held
        self.spent = sum(pair[0] for pair in told)
        self.jobs = sum(pair[1] for pair in told)
        self.version += 1

    def is_alive(self, second: int) -> bool:
        """Whether it would have to be said again if the store lost it, or the store does not have it yet."""
        is_recent = bool(self.recent) and second - self.touched_at <= RECENT_SECONDS
        return self.still_held != 0 or is_recent or self.version != self.acknowledged


class BudgetCounters:
    """The registers of one process, by name of the budget; those of the latest period that is known."""

    def __init__(self) -> None:
        self._registers: dict[str, BudgetCounter] = {}
        self._changed: dict[str, BudgetCounter] = {}

    def _open(self, budget: Budget, start: int) -> BudgetCounter | None:
        """Return the register of a period; None where a later one has begun."""
        found = self._registers.get(budget.store_name)
        if found is not None and found.start == start and found.tag == budget.tag:
            return found
        if found is not None and found.start > start:
            return None
        made = self._registers[budget.store_name] = BudgetCounter(budget, start)
        return made

    def grant(self, hold: Reservation, told: Sequence[int]) -> tuple[int, ...]:
        """Note a granted ask, from start, edition and since of each of its purses; return the starts."""
        starts = []
        for rank, budget in enumerate(hold.budgets):
            start, edition, since = told[3 * rank], told[3 * rank + 1], told[3 * rank + 2]
            register = self._told(budget, start)
            if register.edition != edition:
                self._begin(register, edition, since)
            register.grant(hold.estimate_ns)
            starts.append(start)
        return tuple(starts)

    def _told(self, budget: Budget, start: int) -> BudgetCounter:
        register = self._open(budget, start)
        if register is None:  # the store is right, also where it was lost and its clock is another one
            register = self._registers[budget.store_name] = BudgetCounter(budget, start)
        return register

    def _begin(self, register: BudgetCounter, edition: int, since: int) -> None:
        has_something = register.still_held != 0 or bool(register.recent)
        register.begin(edition, since)
        if has_something:
            self._changed[register.name] = register
        else:
            register.acknowledged = register.version

    def change(  # noqa: PLR0913 (one line of the books)
        self, budget: Budget, start: int, second: int, *, freed: int = 0, spent: int = 0, jobs: int = 0
    ) -> None:
        """Note what became of something held, in the period that began at `start`, if no later one is known."""
        register = self._open(budget, start)
        if register is not None:
            register.change(second, freed=freed, spent=spent, jobs=jobs)
            self._changed[register.name] = register

    def learn(self, register: BudgetCounter, start: int, edition: int, since: int) -> bool:
        """Take what the store says of a purse that a statement was about; return whether it took the statement."""
        if start == register.start and edition == register.edition:
            return True
        if start == register.start and edition:
            self._begin(register, edition, since)
        elif start > register.start and self._registers.get(register.name) is register:
            del self._registers[register.name]
        return False

    @property
    def has_changed(self) -> bool:
        """Whether something is to be stated."""
        return bool(self._changed)

    def changed(self) -> Iterator[list[BudgetCounter]]:
        """Yield what is to be stated, those of one tag together; nothing is to be stated any more then."""
        changed, self._changed = self._changed, {}
        yield from _by_tag(changed.values())

    def alive(self, second: int) -> Iterator[list[BudgetCounter]]:
        """Yield what is to be said again, those of one tag together."""
        yield from _by_tag(each for each in self._registers.values() if each.is_alive(second))

    def all(self) -> Iterator[list[BudgetCounter]]:
        """Yield all, those of one tag together."""
        yield from _by_tag(self._registers.values())


def _by_tag(registers: Iterable[BudgetCounter]) -> Iterator[list[BudgetCounter]]:
    found: dict[str, list[BudgetCounter]] = {}
    for register in registers:
        found.setdefault(register.tag, []).append(register)
    for together in found.values():
        for first in range(0, len(together), MOST_TOGETHER):
            last = first + MOST_TOGETHER
            yield together[first:last]


def hash_tag(tag: str) -> str:
    """Return a text that may stand between the braces of a hash tag, unlike that of any other."""
    return tag.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")


def purse_key(budget: Budget) -> bytes:
    """Return where a budget's purse is, on the same node of a cluster as its team's limits."""
    return f"fgw:{{{hash_tag(budget.tag + '|')}}}:{budget.store_name}".encode()
