"""A policy file, and the credentials that it names, made into an edition.

Decided here: everything that is wrong is told at once, but for one step: what a file names is looked for once the file
itself is right.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from gateway.config.policy_snapshot import PolicySnapshot
from gateway.config.ruleset import PolicyError, load_document, read_policy
from gateway.config.team_keys import KeyFault, read_team_keys
from gateway.platform.published import LARGEST_CONTENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gateway.config.policy_schema import Document


class LoadedPolicy(NamedTuple):
    """An edition, and which credentials it still lacks."""

    edition: PolicySnapshot
    absent: tuple[KeyFault, ...]


def load_policy(path: Path, environ: Mapping[str, str], *, needs_credentials: bool = True) -> LoadedPolicy:
    """Return what a policy file makes; `PolicyError` tells all that is wrong, also a credential that is unfit.

    One that is not there at all is an error, too, but where `needs_credentials` is False.
    """
    content = read_policy(path)
    document = load_document(content, origin=str(path))
    found = read_team_keys(document.teams, environ)
    faults = (*found.faults, *_absent_secret(document, environ))
    errors = [fault for fault in faults if needs_credentials or not fault.absent]
    if errors:
        raise PolicyError(str(path), [(fault.place, fault.message) for fault in errors])
    return LoadedPolicy(make_edition(document, found.keys, origin=str(path), source=digest_of_text(content)), faults)


def _absent_secret(document: Document, environ: Mapping[str, str]) -> tuple[KeyFault, ...]:
    """Return what is wrong with the secret that signs warnings about budgets."""
    hook = document.budget_webhook
    if hook is None or environ.get(hook.secret_env):
        return ()
    return (KeyFault("budget_webhook.secret_env", "names a variable that is not set", absent=True),)


def edition_of_document(document: Document, environ: Mapping[str, str], *, origin: str, source: str) -> PolicySnapshot:
    """Return a document with its credentials; `PolicyError` tells those that cannot be had, and names `origin`."""
    found = read_team_keys(document.teams, environ)
    faults = (*found.faults, *_absent_secret(document, environ))
    if faults:
        raise PolicyError(origin, [(fault.place, fault.message) for fault in faults])
    return make_edition(document, found.keys, origin=origin, source=source)


def make_edition(document: Document, team_keys: Mapping[str, str], *, origin: str, source: str) -> PolicySnapshot:
    """Return an edition out of its parts; `PolicyError` where it is more than workers can be sent."""
    made = PolicySnapshot(document=document, team_keys=dict(team_keys), source=source)
    if len(made.to_json()) > LARGEST_CONTENT_BYTES:
        raise PolicyError(origin, [("", f"unfolds to more than {LARGEST_CONTENT_BYTES} bytes")])
    return made


def digest_of_text(content: bytes) -> str:
    """Return what tells one content of a policy file from another: the hex of its SHA-256."""
    return hashlib.sha256(content).hexdigest()
