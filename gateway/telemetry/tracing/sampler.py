"""Which traces are recorded: the samplers that OTEL_TRACES_SAMPLER names.

The decision by ratio is made of the trace's id alone, as the Go and Python SDKs make it, so that services that draw
with one ratio draw the same traces.
"""

from __future__ import annotations

from typing import Final

PARENT_BASED: Final = "parentbased_"
SAMPLERS: Final = (
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
    "always_on",
    "always_off",
    "traceidratio",
)
_DRAWN_DIGITS: Final = 16
_DRAWN_VALUES: Final = 1 << 64


class Sampler:
    """Decides once for each request, at its head."""

    __slots__ = ("_follows_parent", "_least_refused")

    def __init__(self, name: str, ratio: float) -> None:
        """Take a name of SAMPLERS, and the share of traces, 0 to 1, that those with a ratio take."""
        own = name.removeprefix(PARENT_BASED)
        shares = {"always_on": 1.0, "always_off": 0.0, "traceidratio": ratio}
        self._follows_parent: Final = own != name
        self._least_refused: Final = round(shares[own] * _DRAWN_VALUES)

    def samples(self, trace_id: str, *, parent_sampled: bool | None) -> bool:
        """Return whether a trace is recorded; `parent_sampled` None: it begins here."""
        if self._follows_parent and parent_sampled is not None:
            return parent_sampled
        return int(trace_id[-_DRAWN_DIGITS:], 16) < self._least_refused
