"""The slots that this process holds in the store, and those that it could not give back while the store was away.

The decision it carries: what is held is known here, and said again every few seconds, so that a store that was emptied
learns of it, and one whose holder was killed forgets it (`LEASE_SECONDS`). What could not be given back is remembered
by name, up to a bound, and freed on return instead of after a lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.state.redis.commands import MOST_LEASES_A_COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MOST_OWED: Final = 10_000


class Leases:
    """The books of one process. What is held is bounded by the requests that it lets in."""

    def __init__(self) -> None:
        self._held: dict[bytes, tuple[bytes, ...]] = {}
        self._owed: dict[bytes, tuple[bytes, ...]] = {}

    def hold(self, lease: bytes, keys: Sequence[bytes]) -> None:
        """Note that a lease holds a slot under each of the keys."""
        self._held[lease] = tuple(keys)
        self._owed.pop(lease, None)

    def take(self, lease: bytes) -> tuple[bytes, ...]:
        """Return the keys under which a lease holds slots, and hold them no longer; empty where it holds none."""
        return self._held.pop(lease, ())

    def owe(self, lease: bytes, keys: Sequence[bytes]) -> None:
        """Note slots that are still to be given back; beyond the bound they are left to run out."""
        if keys and lease not in self._held and (lease in self._owed or len(self._owed) < MOST_OWED):
            self._owed[lease] = (*self._owed.get(lease, ()), *keys)

    def owed(self) -> Iterator[tuple[bytes, list[bytes]]]:
        """Yield what is owed, as a key and leases for one command, and owe nothing any more."""
        owed, self._owed = self._owed, {}
        yield from _by_key(owed)

    def held(self) -> Iterator[tuple[bytes, list[bytes]]]:
        """Yield what is held, as a key and leases for one command."""
        yield from _by_key(self._held)

    def give_back(self) -> None:
        """Owe all that is held."""
        held, self._held = self._held, {}
        for lease, keys in held.items():
            self.owe(lease, keys)


def _by_key(leases: Mapping[bytes, Sequence[bytes]]) -> Iterator[tuple[bytes, list[bytes]]]:
    names: dict[bytes, list[bytes]] = {}
    for lease, keys in leases.items():
        for key in keys:
            names.setdefault(key, []).append(lease)
    for key, members in names.items():
        for first in range(0, len(members), MOST_LEASES_A_COMMAND):
            last = first + MOST_LEASES_A_COMMAND
            yield key, members[first:last]
