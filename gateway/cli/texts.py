"""What a person reads who is given a key: at a start without a policy file, and by `keys new`."""

from __future__ import annotations

import json
from typing import Final

_EXAMPLE_ENDPOINT: Final = "fal-ai/flux/dev"


def welcome_lines(address: str, secret: str) -> tuple[str, ...]:
    """Return what a person needs for a first call; an address of all interfaces is shown as one to connect to."""
    place = address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")  # noqa: S104 (shown, not bound)
    return (
        f"fal-gateway on http://{place}, without a policy file. A key for this run: {secret}",
        "",
        f"curl http://{place}/api/fal/proxy \\",
        f"  -H 'Authorization: Key {secret}' \\",
        f"  -H 'x-fal-target-url: https://fal.run/{_EXAMPLE_ENDPOINT}' \\",
        "  -H 'Content-Type: application/json' \\",
        """  -d '{"prompt": "a cat"}'""",
        "",
    )


def key_lines(key_id: str, team: str, *, secret: str, digest: str) -> tuple[str, ...]:
    """Return the secret and the policy entry of a new key; ids are quoted, or YAML would read some as numbers."""
    return (
        f"The key, shown this once: {secret}",
        "",
        "Its entry in the policy file, under keys:",
        f"  - id: {json.dumps(key_id)}",
        f"    team: {json.dumps(team)}",
        f"    digests: [{json.dumps(digest)}]",
    )
