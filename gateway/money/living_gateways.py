"""Which gateways share the store: what looks of the last seconds have found there.

The decisions it carries:

* Each gateway shows its life with each look, once a second. A store that was emptied forgets all of them, and a look
  straight behind that finds only those that have looked since. So what the last looks have found counts together.
* It also says until when that list is whole. A gateway that had shown its life when the look before the last one began
  is in one of the two behind it, wherever between them the store was emptied (once). One that began later may be in
  none.
* A store that is unavailable can forget nobody, so the list stays whole up to the last look that failed. One that is
  found again has to be looked at as often as one that was emptied. What cannot be known: a gateway that began in the
  outage, or within the last look before it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

_LOOKS: Final = 5
_LOOKS_TO_KNOW: Final = 3


class Living(NamedTuple):
    """Names of gateways that live, and until when no other one can have begun: monotonic seconds."""

    names: frozenset[str]
    known_until: float


class LifeSigns:
    """The looks of one ledger process; what it reads, `living`, any thread may read."""

    def __init__(self, replica: str) -> None:
        """`replica` is this gateway's own name."""
        self.living = Living(frozenset({replica}), 0.0)
        self._replica = replica
        self._looks: deque[tuple[float, frozenset[str]]] = deque(maxlen=_LOOKS)

    def saw(self, found: Collection[str], *, begun_at: float, ended: Collection[str] = ()) -> None:
        """Take what a look found that began at `begun_at`; `ended` are gateways that certainly live no more."""
        self._looks.append((begun_at, frozenset(found)))
        names = frozenset({self._replica}).union(*(names for _, names in self._looks)).difference(ended)
        known_until = self._looks[-_LOOKS_TO_KNOW][0] if len(self._looks) >= _LOOKS_TO_KNOW else 0.0
        self.living = Living(names, known_until)

    def missed(self, *, begun_at: float) -> None:
        """Take that a look which began at `begun_at` found no store."""
        if len(self._looks) >= _LOOKS_TO_KNOW:
            self.living = self.living._replace(known_until=begun_at)
