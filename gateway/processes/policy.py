"""The policy process: reads the policy again when its file changes, and publishes what is right.

The decision: a process of its own. To judge a policy of 20,000 keys takes seconds of CPU time, in which the supervisor
would reap and restart nothing. It begins with what the supervisor has read at the start, and
holds nothing that another start would not read again.
"""

from __future__ import annotations

import gc
import os
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.config.reload import Reloads
from gateway.platform.signals import RELOAD, STOP, SignalPipe
from gateway.telemetry.metrics.families import POLICY_RELOAD_ERRORS

if TYPE_CHECKING:
    from gateway.config.policy_snapshot import PolicySnapshot
    from gateway.processes.publisher import Publisher
    from gateway.processes.shared import Shared
    from gateway.telemetry.metrics.scoreboard import ProcessSlot

TICK_SECONDS: Final = 0.05


def run_reloads(shared: Shared, slot: ProcessSlot, policy: PolicySnapshot, *, publisher: Publisher) -> None:
    """Follow the files of a policy until the supervisor asks to stop, or is gone."""
    region = slot.region
    publisher.move(region)
    errors = region.claim_spare(POLICY_RELOAD_ERRORS.name, ())

    def count_error() -> None:
        region.cells[errors] += 1

    reloads = Reloads(
        policy,
        path=shared.settings.policy,
        environ=shared.environ,
        put_in_force=publisher.publish,
        count_error=count_error,
    )
    signals = SignalPipe((STOP, RELOAD))
    reloads.prepare()
    gc.freeze()  # what was read stays, and to look for garbage in it takes as long as a reload
    while os.getppid() == shared.scoreboard.supervisor.pid:
        for number in signals.wait(TICK_SECONDS):
            if number == STOP:
                return
            reloads.reload()
        reloads.look(monotonic())
