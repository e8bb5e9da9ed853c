"""`make run`: the gateway on this machine, before fal where a credential is set, before the emulator where none is.

The decision it carries: emulator and gateway each get a session of their own, so that Ctrl-C reaches this program
alone. It passes the signal to the gateway, which drains while its origin is still there; only then the emulator ends.
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


def before_emulator(environ: Mapping[str, str], base_url: str) -> dict[str, str]:
    """Return the environment of a gateway that connects to the emulator wherever it is asked for fal."""
    overrides = ",".join(f"{host}={base_url}" for host in FAL_HOSTS)
    return {**environ, "FAL_KEY": "emulator:no-secret", "FALGW_ORIGIN_OVERRIDES": overrides}


def serve(environ: Mapping[str, str]) -> int:
    """Run the gateway until it ends, passing signals on to it; return its exit code."""
    gateway = subprocess.Popen([sys.executable, "-m", "gateway", "serve"], env=environ, start_new_session=True)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        gateway.send_signal(PASSED_ON[signal.Signals(number)])

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    return gateway.wait()


def main() -> int:
    """Run gateway and, where no fal credential is set, the emulator behind it; return the gateway's exit code."""
    if any(os.environ.get(name) for name in CREDENTIALS):
        return serve(os.environ)
    emulator = start_emulator()
    try:
        base_url = base_url_of(emulator)
        sys.stdout.write(f"No FAL_KEY is set: the gateway stands before an emulator of fal on {base_url}\n")
        sys.stdout.flush()
        return serve(before_emulator(os.environ, base_url))
    finally:
        stop_emulator(emulator)


if __name__ == "__main__":
    sys.exit(main())
