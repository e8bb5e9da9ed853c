"""What holds for every transfer of a relay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.relay.phases import Phases


@dataclass(frozen=True, slots=True)
class CurlOptions:
    """Bounds by phase; the CA bundle (`ca_file` None: libcurl's own default); how many transfers there may be."""

    phases: Phases
    ca_file: str | None
    max_transfers: int
