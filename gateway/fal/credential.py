"""Who fal takes a request for: the credential that goes with it, and the tags where the policy asks for them.

Built anew with each policy, so that a request has one look-up to pay for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.fal.tags import tagged

if TYPE_CHECKING:
    from collections.abc import Mapping


class Sender:
    """Signs the field lines of requests to the origin."""

    def __init__(self, credential: str, team_credentials: Mapping[str, str], *, tags: bool) -> None:
        """Take the gateway's fal credential, those of teams that have one of their own, and whether to add tags."""
        self._line: Final = _line(credential)
        self._lines: Final = {team: _line(key) for team, key in team_credentials.items()}
        self._tags: Final = tags

    def sign(self, lines: list[bytes], *, team: str, key: str) -> list[bytes]:
        """Return field lines with the credential of a team, and with tags for team and key where they are asked for."""
        lines.append(self._lines.get(team, self._line))
        return tagged(lines, team=team, key=key) if self._tags else lines


def _line(credential: str) -> bytes:
    return b"authorization: Key " + credential.encode()
