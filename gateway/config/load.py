"""Settings and policy together, as a command finds them.

The decision: both are read to the end, so that everything that is wrong is told at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config.policy_file import LoadedPolicy, load_policy
from gateway.config.ruleset import PolicyError
from gateway.config.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class ConfigurationError(Exception):
    """Settings or policy that cannot be run with: `errors` holds one line for each thing that is wrong."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)


def read_configuration(
    environ: Mapping[str, str], *, need_credential: bool = True
) -> tuple[Settings, LoadedPolicy | None]:
    """Return settings, and the policy of the file if there is one; ConfigurationError tells all that is wrong."""
    errors: list[str] = []
    settings = policy = None
    try:
        settings = load_settings(environ, need_credential=need_credential)
    except SettingsError as error:
        errors += str(error).splitlines()
    try:
        file = environ.get("FALGW_POLICY")
        policy = load_policy(Path(file), environ, needs_credentials=need_credential) if file else None
    except PolicyError as error:
        errors += str(error).splitlines()
    if errors or settings is None:
        raise ConfigurationError(errors)
    return settings, policy


def summary(settings: Settings, policy: LoadedPolicy | None) -> str:
    """Return what a valid configuration holds, in one line."""
    if policy is None:
        return "settings are valid; without a policy file: the defaults, and a key made for each run"
    document = policy.edition.document
    counts = f"{len(document.keys)} keys in {len(document.teams)} teams, {len(document.prices)} prices"
    return f"settings and {settings.policy} are valid: {counts}"
