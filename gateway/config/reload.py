"""The policy while the gateway runs: read again when its file changes or SIGHUP asks, active as a whole or not at all.

The decisions: this runs in a process of its own (processes/policy.py), which relays nothing, so that YAML costs no
request anything; and it is asked at each tick, since that process has no event loop. What is broken changes nothing,
is logged once for each content, and counted. A credential that goes bad in its file leaves the old one active, and a
policy that was refused for want of a credential is judged again when one of the files with credentials changes.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Final

import structlog

from gateway.config.access import Access
from gateway.config.file_watch import FileWatch
from gateway.config.policy_file import digest_of_text, edition_of_document, make_edition
from gateway.config.policy_reader import PolicyReader
from gateway.config.ruleset import PolicyError, read_policy
from gateway.config.team_keys import read_team_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway.config.policy_schema import Document
    from gateway.config.policy_snapshot import PolicySnapshot

_MOST_TOLD: Final = 200  # errors in one log event
_MOST_WARNED: Final = 20  # reasons in one


def warn_of_access(access: Access, *, path: Path | None) -> None:
    """Log where nobody can call under the active policy, or where no budget admits a purchase."""
    if access.is_closed:
        reason = "; ".join(f"{place}: {message}" for place, message in access.closed_findings()[:_MOST_WARNED])
        structlog.get_logger().warning("policy_admits_nobody", path=str(path), reason=reason)
    elif access.is_without_purchases:
        structlog.get_logger().warning("policy_admits_no_purchase", path=str(path))


class Reloads:
    """Watches the file of a policy and the files with credentials that it names.

    `put_in_force` takes an edition and returns its generation.
    """

    def __init__(
        self,
        edition: PolicySnapshot,
        *,
        path: Path | None,
        environ: Mapping[str, str],
        put_in_force: Callable[[PolicySnapshot], int],
        count_error: Callable[[], None],
    ) -> None:
        """Begin with the edition in force; without a path there is nothing to watch."""
        self._edition = edition
        self._path = path
        self._environ = environ
        self._put_in_force = put_in_force
        self._count_error = count_error
        self._reader = PolicyReader()
        self._judged = edition.source  # what the file held when it was last judged
        self._refused: Document | None = None  # it lacks but a credential
        self._refused_for: tuple[tuple[str, str], ...] = ()
        self._told: dict[str, str] = {}  # faults of credentials in force that were told, by place
        self._watch = FileWatch(path) if path is not None else None
        self._key_watches: dict[str, FileWatch] = {}
        self._watch_keys()
        self._events = structlog.get_logger()

    def prepare(self) -> None:
        """Read the file once and change nothing, so that of a change only that is read; takes as long as a start."""
        if self._path is not None:
            with contextlib.suppress(PolicyError):  # it has changed since the start: the next look says so
                self._reader.read(read_policy(self._path), origin=str(self._path))

    def look(self, now: float) -> None:
        """Act on what has changed; to be called several times a second, `now` in monotonic seconds."""
        if self._watch is not None and self._watch.look(now):
            self._reload(asked=False)
        changed = [watch for watch in self._key_watches.values() if watch.look(now)]  # all look, not up to the first
        if changed:
            self._reread_keys()

    def reload(self) -> None:
        """Reload without a change, too: somebody asked for it."""
        if self._path is None:
            self._events.warning("policy_reload_skipped", reason="there is no policy file")
        else:
            self._reload(asked=True)

    def _reload(self, *, asked: bool) -> None:
        path = Path(self._path or "")
        try:
            content = read_policy(path)
        except PolicyError as error:
            self._judged, self._refused = "", None
            self._fail(error.errors)
            return
        digest = digest_of_text(content)
        if digest == self._judged and not asked:
            return
        self._judged, self._refused = digest, None
        try:
            document = self._reader.read(content, origin=str(path))
        except PolicyError as error:
            self._fail(error.errors)
            return
        now = time()
        access = Access(document, now)
        if access.is_closed and not Access(self._edition.document, now).is_closed:  # the file was emptied, for one
            self._fail(access.closed_findings())
        elif self._adopt(document) and not access.is_closed:
            warn_of_access(access, path=path)

    def _adopt(self, document: Document) -> bool:
        """Make a document active; return whether it is."""
        try:
            edition = edition_of_document(document, self._environ, origin=str(self._path), source=self._judged)
        except PolicyError as error:
            if self._refused is not document or self._refused_for != error.errors:
                self._fail(error.errors)
            self._refused, self._refused_for = document, error.errors
            self._watch_keys()
            return False
        self._refused = None
        generation = self._put_in_force(edition)
        self._edition = edition
        self._told.clear()
        self._watch_keys()
        self._events.info(
            "policy_reloaded",
            generation=generation,
            teams=len(document.teams),
            keys=len(document.keys),
            prices=len(document.prices),
        )
        return True

    def _fail(self, errors: Iterable[tuple[str, str]]) -> None:
        told = [": ".join(filter(None, error)) for error in errors]
        self._count_error()
        self._events.error(
            "policy_reload_failed", path=str(self._path), errors=told[:_MOST_TOLD], errors_total=len(told)
        )

    # -- credentials ------------------------------------------------------------------------------------------------

    def _watch_keys(self) -> None:
        """Watch the files with credentials of what is in force, and of what was refused for want of one."""
        documents = [self._edition.document, *([self._refused] if self._refused else [])]
        paths = {team.fal_key_file for document in documents for team in document.teams if team.fal_key_file}
        self._key_watches = {path: self._key_watches.get(path) or FileWatch(Path(path)) for path in sorted(paths)}

    def _reread_keys(self) -> None:
        if self._refused is not None:
            self._adopt(self._refused)
        edition = self._edition
        found = read_team_keys(edition.document.teams, self._environ)
        faults = {fault.place: fault.message for fault in found.faults}
        for place, message in faults.items():
            if self._told.get(place) != message:
                self._count_error()
                self._events.error("credential_reload_failed", place=place, error=message)
        self._told = faults
        changed = [team for team, key in found.keys.items() if edition.team_keys.get(team) != key]
        if changed:
            self._rotate({**edition.team_keys, **found.keys}, changed)

    def _rotate(self, keys: Mapping[str, str], teams: list[str]) -> None:
        before = self._edition
        try:
            edition = make_edition(before.document, keys, origin=str(self._path), source=before.source)
        except PolicyError as error:
            self._fail(error.errors)
            return
        generation = self._put_in_force(edition)
        self._edition = edition
        self._events.info("credential_reloaded", generation=generation, teams=teams[:_MOST_TOLD])
