"""Gateway keys and policy files for tests, made the way an operator would: the file holds digests only."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class GatewayKey:
    """A key as its owner knows it, and its entry in the policy file. `entry` holds further lines of that entry."""

    id: str = "web-test"
    team: str = "design"
    secret: str = field(default_factory=lambda: f"test-{secrets.token_hex(24)}")
    entry: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """`sha256:` and the hex of the whole key text."""
        return f"sha256:{hashlib.sha256(self.secret.encode()).hexdigest()}"

    def as_policy(self) -> dict[str, Any]:
        """Return the key's entry in the policy file."""
        return {"id": self.id, "team": self.team, "digests": [self.digest], **self.entry}


def policy_text(*keys: GatewayKey, **sections: Any) -> str:  # noqa: ANN401 - any part of a policy file
    """Return a policy file with these keys, a team for each team that they name, and `sections` as they are."""
    teams = [{"id": team} for team in dict.fromkeys(key.team for key in keys)]
    document: dict[str, Any] = {"teams": teams, "keys": [key.as_policy() for key in keys], **sections}
    return yaml.safe_dump(document, sort_keys=False)
