"""What one key buys at one endpoint, as metrics count it.

The decision: whoever buys keeps its account, so that the cells to add to are looked up once. Where the region is full
they are the overflow's, and stay so: nothing of a region is given back in a process's life.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.telemetry.metrics import families as metrics
from gateway.telemetry.record import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from gateway.telemetry.metrics.counters import Labels
    from gateway.telemetry.metrics.families import Family

_QUANTITIES_KEPT: Final = 256
_LAST: Final = 2**63 - 1  # what a cell can hold


class PurchaseCounter:
    """Counts the purchases of one key at one endpoint, in one unit."""

    __slots__ = ("_cells", "_costs", "_find", "_names", "_parts", "_unit", "_units", "_unpriced")

    def __init__(
        self, cells: memoryview, find: Callable[[Family, Labels], int], names: Labels, *, unit: str | None
    ) -> None:
        """Take the cells, what finds the one of a series, the labels team, key and endpoint, and the unit's name."""
        self._cells: Final = cells
        self._find: Final = find
        self._names: Final = names
        self._unit: Final = unit or UNKNOWN
        self._costs: Final[dict[str, int]] = {}  # by source
        self._parts: Final[dict[Decimal, int]] = {}  # of quantities
        self._units = -1
        self._unpriced = -1

    def count(self, units: Decimal | None, cost_ns: int | None, source: str) -> None:
        """Count a purchase that has come to its cost, or to none that is known."""
        cells = self._cells
        if units is not None:
            if self._units < 0:
                self._units = self._find(metrics.UNITS, (*self._names, self._unit))
            cells[self._units] = clamped(cells[self._units] + self._parts_of(units))
        if cost_ns is None:
            if self._unpriced < 0:
                self._unpriced = self._find(metrics.UNPRICED, self._names[2:])
            cells[self._unpriced] += 1
            return
        cell = self._costs.get(source)
        if cell is None:
            cell = self._costs[source] = self._find(metrics.COST, (*self._names, source))
        cells[cell] = clamped(cells[cell] + cost_ns)

    def _parts_of(self, units: Decimal) -> int:
        known = self._parts.get(units)
        if known is None:
            if len(self._parts) >= _QUANTITIES_KEPT:
                self._parts.clear()
            known = self._parts[units] = int(units * metrics.UNITS.parts)
        return known


def clamped(value: int) -> int:
    """Return a value that a cell can hold: a sum of garbled figures ends where a cell does."""
    return value if -_LAST - 1 <= value <= _LAST else _LAST if value > 0 else -_LAST
