"""The teams' own fal credentials, out of variables and files that the policy names.

Decided here: what is not there and what is there but unfit are told apart, because a policy is also checked where no
secret is. The variables are those that the process was started with; files are read anew each time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gateway.config.fal_key import AbsentKeyError, fit_for_a_field, key_in_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.config.policy_schema import Team


class KeyFault(NamedTuple):
    """A credential that cannot be had: its place in the policy, why, and whether there is nothing at all."""

    place: str
    message: str
    absent: bool


@dataclass(frozen=True, slots=True)
class TeamKeys:
    """The credentials by team, without those of `faults`."""

    keys: Mapping[str, str] = field(repr=False)
    faults: tuple[KeyFault, ...]


def read_team_keys(teams: Sequence[Team], environ: Mapping[str, str]) -> TeamKeys:
    """Return the credentials that teams have of their own; those without the fields have none."""
    keys: dict[str, str] = {}
    faults = []
    for number, team in enumerate(teams):
        name = "fal_key_env" if team.fal_key_env is not None else "fal_key_file"
        try:
            key = _key_of(team, environ)
        except ValueError as fault:
            absent = isinstance(fault, AbsentKeyError)
            faults.append(KeyFault(f"teams[{number}].{name}", str(fault), absent))
        else:
            keys.update({team.id: key} if key is not None else {})
    return TeamKeys(keys, tuple(faults))


def _key_of(team: Team, environ: Mapping[str, str]) -> str | None:
    if team.fal_key_file is not None:
        return key_in_file(team.fal_key_file)
    if team.fal_key_env is None:
        return None
    key = environ.get(team.fal_key_env)
    if not key:  # set to nothing counts as left out, as with the settings
        raise AbsentKeyError("names a variable that is not set")
    return fit_for_a_field(key)
