"""Shows what the ledger says was spent over all time, as `ledger_cost_usd`.

The decision: the sums are asked of the database every few seconds, all of them, so that the gauge is the ledger's and
not this process's: no restart changes it, and gateways that share a database show the same. Reading 1,000 sums takes 4
ms; a ledger has one for each key, endpoint and source that ever came to a cost. Names that no policy knows any more
keep their series, or the spending of a month would change with the policy. What is beyond the bounds is `other`.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.ledger.faults import LedgerAwayError
from gateway.metering.cells import VOID
from gateway.metering.metrics import LEDGER_COST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.ledger.ledger import Ledger
    from gateway.ledger.totals import Total
    from gateway.metering.cells import Labels, Region

LOOK_SECONDS: Final = 3.0
"""From one reading to the next; what gauges say of money is at most 5 s old (CONTRACT 8)."""

MOST_SERIES: Final = 20_000
"""So many get a series of their own, the oldest first: the others' gauges need room in the memory, too."""


class Outlay:
    """Begun with the ledger process, and told several times a second what time it is."""

    def __init__(
        self,
        ledger: Ledger,
        region: Region,
        *,
        label: Callable[[str], str],
        most_series: int = MOST_SERIES,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Take the region of the ledger's seat; `label` gives an endpoint's label value, `clock` seconds."""
        self._ledger, self._region, self._label = ledger, region, label
        self._most_series, self._clock = most_series, clock
        self._due_at = 0.0
        self._shown = {series.first for series in region.series() if series.family == LEDGER_COST.name}

    def tick(self, *, is_up: bool) -> None:
        """Show the sums anew where it is time to; `is_up`: the database answers."""
        now = self._clock()
        if not is_up or now < self._due_at:
            return
        self._due_at = now + LOOK_SECONDS
        try:
            totals = self._ledger.totals()
        except LedgerAwayError:  # said by the clerk with its next attempt
            return
        self._show(totals)

    def _show(self, totals: Iterable[Total]) -> None:
        sums: dict[Labels, int] = {}
        for total in totals:
            labels: Labels = (total.team, total.key, self._label(total.endpoint), total.source)
            if labels not in sums and len(sums) >= self._most_series:
                labels = LEDGER_COST.overflow(labels)
            sums[labels] = sums.get(labels, 0) + total.cost_ns
        values: dict[int, int] = {}
        for labels, cost_ns in sums.items():
            cell = self._cell(labels)
            values[cell] = values.get(cell, 0) + cost_ns
        cells = self._region.cells
        for cell in self._shown.difference(values):
            cells[cell] = VOID
        for cell, cost_ns in values.items():
            cells[cell] = cost_ns
        self._shown = set(values)

    def _cell(self, labels: Labels) -> int:
        cell = self._region.claim(LEDGER_COST.name, labels)
        return cell if cell is not None else self._region.claim_spare(LEDGER_COST.name, LEDGER_COST.overflow(labels))
