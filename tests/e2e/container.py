"""A gateway, or an emulator, out of the image: the harness's own, with podman for Python."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from tests.e2e.tools import IMAGE, RUN_FLAGS, run, store_environment
from tests.harness.emulator import Emulator
from tests.harness.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LOCKED_DOWN: Final = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
)
"""As the chart runs it: a root file system that nobody can write to, and no privilege that could be gained."""

_STUB: Final = Path(__file__).parent / "in_image.py"
_numbers: Final = itertools.count(1)


def program(name: str, *options: str) -> tuple[str, ...]:
    """Return what stands for `-m gateway`: the image, in a container of this name."""
    return (str(_STUB), f"--name={name}", *RUN_FLAGS, *LOCKED_DOWN, *options, IMAGE)


class Container:
    """What podman knows of a container by its name."""

    def __init__(self) -> None:
        self.name = f"fal-gateway-e2e-{os.getpid()}-{next(_numbers)}"

    def inspect(self, what: str) -> Any:  # noqa: ANN401 - JSON
        """Return one part of what podman says about it."""
        return json.loads(run("podman", "inspect", "--format", f"{{{{json .{what}}}}}", self.name))

    def execute(self, *command: str) -> str:
        """Run a command within it; return what it printed."""
        return run("podman", "exec", self.name, *command)

    def first(self) -> psutil.Process:
        """Return its first process, as the host sees it."""
        return psutil.Process(self.inspect("State.Pid"))

    def remove(self) -> None:
        """Remove it with its volumes, whether it runs or not."""
        run("podman", "rm", "--force", "--ignore", "--time=0", "--volumes", self.name)


class ContainedGateway(Gateway):
    """`fal-gateway serve` in a container."""

    def __init__(
        self, folder: Path, *, policy: str | None, env: Mapping[str, str], options: Sequence[str] = ()
    ) -> None:
        self.container = Container()
        folder.mkdir(parents=True)
        super().__init__(
            folder,
            policy=policy,
            env={**env, **store_environment()},
            program=program(self.container.name, f"--volume={folder}:{folder}:ro", *options),
        )

    def close(self, *, expected: int | None = 0) -> None:
        """End it as every gateway is ended, and take the container away."""
        try:
            super().close(expected=expected)
        finally:
            self.container.remove()


class ContainedEmulator(Emulator):
    """`fal-gateway emulator` in a container."""

    def __init__(self, folder: Path) -> None:
        self.container = Container()
        super().__init__(folder, program=program(self.container.name), env=store_environment())

    def close(self) -> None:
        """End it, and take the container away."""
        try:
            super().close()
        finally:
            self.container.remove()
