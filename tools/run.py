"""`make run`: the gateway on this machine, before fal where a credential is set, before the emulator where none is.

The decisions it carries: emulator and gateway each get a session of their own, so that Ctrl-C reaches this program
alone. It passes the signal to the gateway, which drains while its origin is still there; only then the emulator ends.
What is only tried out is kept apart from real money: with the emulator the gateway has a ledger of its own, and
no Redis. No load balancer has to notice the end, so there is no shutdown delay.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

CREDENTIALS: Final = ("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_FILE")
FAL_HOSTS: Final = ("fal.run", "queue.fal.run", "rest.fal.ai", "api.fal.ai")
ANNOUNCEMENT: Final = "fal emulator on "
EMULATOR_LEDGER: Final = "fal-gateway-emulator.db"
EMULATOR_STOP_SECONDS: Final = 10.0
PASSED_ON: Final = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}


def start_emulator() -> subprocess.Popen[str]:
    """Start the emulator on a free port; its first line says which."""
    command = [sys.executable, "-m", "gateway", "emulator", "--port", "0"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def base_url_of(emulator: subprocess.Popen[str]) -> str:
    """Wait for the emulator's first line; return the base URL in it (`http://127.0.0.1:PORT`)."""
    line = emulator.stdout.readline().strip() if emulator.stdout else ""
    if not line.startswith(ANNOUNCEMENT):
        raise SystemExit(f"the emulator did not start; it said {line!r}")
    return line.removeprefix(ANNOUNCEMENT)


def stop_emulator(emulator: subprocess.Popen[str]) -> None:
    """End the emulator by its process id, politely first."""
    emulator.terminate()
    try:
        emulator.wait(EMULATOR_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        emulator.kill()
        emulator.wait()


def for_trying_out(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a gateway that a person runs: it ends at once where nothing is under way."""
    return {"FALGW_SHUTDOWN_DELAY": "0", **environ}


def before_emulator(environ: Mapping[str, str], base_url: str) -> dict[str, str]:
    """Return the environment of a gateway that connects to the emulator wherever it is asked for fal."""
    overrides = ",".join(f"{host}={base_url}" for host in FAL_HOSTS)
    return {
        **environ,
        "FAL_KEY": "emulator:no-secret",
        "FALGW_ORIGIN_OVERRIDES": overrides,
        "FALGW_DATABASE_URL": f"sqlite:///{EMULATOR_LEDGER}",
        "FALGW_REDIS_URL": "",
    }


def serve(environ: Mapping[str, str]) -> int:
    """Run the gateway until it ends, passing signals on to it; return its exit code."""
    started: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if started:
            started[0].send_signal(PASSED_ON[signal.Signals(number)])
        else:
            early.append(number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    started.append(subprocess.Popen([sys.executable, "-m", "gateway", "serve"], env=environ, start_new_session=True))
    for missed in early:
        pass_on(missed, None)
    return started[0].wait()


def leave(_number: int, _frame: FrameType | None) -> None:
    """End before there is a gateway to pass a signal on to."""
    raise SystemExit(0)


def say(*lines: str) -> None:
    """Print, at once."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main() -> int:
    """Run gateway and, where no fal credential is set, the emulator behind it; return the gateway's exit code."""
    for number in PASSED_ON:
        signal.signal(number, leave)
    environ = for_trying_out(os.environ)
    if any(os.environ.get(name) for name in CREDENTIALS):
        say("Starting the gateway; calls go to fal with the credential that is set.")
        return serve(environ)
    say("No FAL_KEY is set: starting an emulator of fal, and the gateway before it.")
    emulator = start_emulator()
    try:
        base_url = base_url_of(emulator)
        say(
            f"Calls go to the emulator of fal on {base_url} (docs/emulator.md), and nothing is billed.",
            f"Purchases are recorded in {EMULATOR_LEDGER}, whatever FALGW_DATABASE_URL says; Redis is not used.",
        )
        return serve(before_emulator(environ, base_url))
    finally:
        stop_emulator(emulator)


if __name__ == "__main__":
    sys.exit(main())
