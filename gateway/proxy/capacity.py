"""How many exchanges a worker may have open, and whose: no team has all places, and no caller that has left.

The decision: two bounds beside the total. Above four fifths of the places only teams with less than their share of them
get one, so a team that opens all it can leaves room for the others, and nothing is held back while there is room.
Paid runs whose callers have left are read on for their units, for minutes; they have a quarter of the places. Where one
more leaves, the oldest of the team that has most of them is ended, and settled as unknown at its estimate: a team that
opens and leaves pays for it by itself. It costs a request one look-up when it begins and one when it ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.http.problem import Problem, refusal

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange

_CONTESTED: Final = 5  # one of so many places is for teams that hold less than their share
_LEFT: Final = 4  # one of so many places may be held for a caller who has left
_RETRY_SOON: Final = ((b"retry-after", b"1"),)
_FULL: Final = refusal("capacity_reached", "Too many requests in flight; try again.", _RETRY_SOON)
_TEAM_FULL: Final = refusal(
    "capacity_reached",
    "Too many requests in flight for this team; the rest of the capacity is kept for other teams.",
    _RETRY_SOON,
)


class Capacity:
    """The open exchanges of one worker."""

    def __init__(self, max_inflight: int) -> None:
        """Take how many exchanges may be open at once."""
        self._most = max_inflight
        self._contested_from = max_inflight - max_inflight // _CONTESTED
        self._most_left = max(1, max_inflight // _LEFT)
        self._open: set[Exchange] = set()
        self._teams: dict[str, int] = {}  # open exchanges of each team that has any
        self._left: dict[str, dict[Exchange, None]] = {}  # those whose callers have left, the oldest first
        self._left_count = 0

    @property
    def inflight(self) -> int:
        """How many exchanges are open, those included whose callers have left."""
        return len(self._open)

    def exchanges(self) -> list[Exchange]:
        """Return the open exchanges."""
        return list(self._open)

    def refusal(self, team: str, max_share: float) -> Problem | None:
        """Return why a team may not open one more; `max_share` of the places, 0 to 1, bounds it where they are few."""
        inflight = len(self._open)
        if inflight < self._contested_from:
            return None
        if inflight >= self._most:
            return _FULL
        return _TEAM_FULL if self._teams.get(team, 0) >= max_share * self._most else None

    def begin(self, exchange: Exchange) -> None:
        """Count an exchange that begins."""
        self._open.add(exchange)
        team = exchange.record.team
        self._teams[team] = self._teams.get(team, 0) + 1

    def end(self, exchange: Exchange) -> None:
        """Count an exchange that has ended; one that never began, since it was refused, changes nothing."""
        if exchange not in self._open:
            return
        self._open.remove(exchange)
        team = exchange.record.team
        if self._teams[team] > 1:
            self._teams[team] -= 1
        else:
            del self._teams[team]
        if self._left_count:
            self._forget_left(exchange, team)

    def _forget_left(self, exchange: Exchange, team: str) -> None:
        left = self._left.get(team)
        if left is not None and exchange in left:
            del left[exchange]
            self._left_count -= 1
            if not left:
                del self._left[team]

    def leave(self, exchange: Exchange) -> None:
        """Count an exchange that goes on without its caller; one too many ends another."""
        self._left.setdefault(exchange.record.team, {})[exchange] = None
        self._left_count += 1
        if self._left_count > self._most_left:
            most = max(self._left.values(), key=len)
            next(iter(most)).let_go()
