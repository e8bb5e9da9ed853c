"""Which endpoints, and which apps of a realtime token, a set of endpoint globs admits.

The decisions it carries:

* A job's URL has owner and alias only, so where the submitted endpoint is not known a job call is admitted if the set
  admits anything of that application. A poll gives no more than the submit, which was checked in full, gave before.
* A token opens an application directly at fal, past this gateway. The clients ask for it by the bare alias,
  without the owner, and so a token is granted only where the set admits the application itself, as `owner/alias`,
  `owner/alias/**` and `owner/*` do; `owner/alias/path` alone would open more than it says.
* Storage and token calls name no endpoint, so endpoint globs are not asked about them; every other path is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway.fal.calls import NAMESPACES
from gateway.http.problem import Problem, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.fal.calls import Call
    from gateway.policy.glob import GlobSet

SHOWN_CHARACTERS: Final = 128

_APP: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*+")
"""An app as a token request may name it; `*` or `..` would mean more to the origin than to a glob."""


_NUMBERED_OWNER: Final = re.compile(r"[0-9]+[-/](.+)")
"""An application by the number of its owner: fal's clients make `110602490/lora` of `110602490-lora`."""


class PricedNames:
    """Endpoints that have a price, and what fal may take for one of them though it is written otherwise."""

    def __init__(self, endpoints: Iterable[str]) -> None:
        self._names: Final = frozenset(map(str.lower, endpoints))
        self._names_without_owner: Final = frozenset(name.partition("/")[2] for name in self._names)

    def has_other_name(self, endpoint: str) -> bool:
        """Return whether an endpoint without a price may be one that has: case, `stream` at the end, owner's number."""
        name = endpoint.lower()
        while name not in self._names and name.endswith("/stream"):
            name = name.removesuffix("/stream")
        numbered = _NUMBERED_OWNER.fullmatch(name)
        return name in self._names or (numbered is not None and numbered[1] in self._names_without_owner)


def admit_endpoint(call: Call, endpoints: GlobSet | None) -> Problem | None:
    """Return an `endpoint_not_allowed` problem unless the set (None: every endpoint) admits the call."""
    if endpoints is None or call.kind in {"storage", "tokens"}:
        return None
    admitted = endpoints.matches(call.endpoint) if call.job is None else endpoints.reaches(call.endpoint)
    return None if admitted else _not_allowed(call.endpoint)


def admit_apps(apps: Sequence[str], endpoints: GlobSet | None) -> Problem | None:
    """Return an `endpoint_not_allowed` problem unless the set (None: every endpoint) admits each of the apps."""
    if endpoints is None:
        return None
    return next((_not_allowed(app) for app in apps if not _admits_app(endpoints, app)), None)


def _admits_app(endpoints: GlobSet, app: str) -> bool:
    """Return whether a set admits an app, named in full or by its bare alias."""
    if _APP.fullmatch(app) is None:
        return False
    if "/" in app:
        return endpoints.matches(app)
    return any(endpoints.matches(f"{_owner_in(pattern)}/{app}") for pattern in endpoints.patterns)


def _owner_in(pattern: str) -> str:
    """Return an owner, a namespace in front, that a pattern admits: its own words, for `*` fits itself too."""
    segments = pattern.split("/")
    return "/".join(segments[: 2 if segments[0] in NAMESPACES else 1])


def _not_allowed(name: str) -> Problem:
    """Return the problem of an endpoint or app that is not for this key."""
    shown = ascii(name[:SHOWN_CHARACTERS])
    return refusal("endpoint_not_allowed", f"This key may not call {shown}.")
