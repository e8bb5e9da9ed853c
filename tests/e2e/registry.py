"""A registry of images on loopback, with a folder for a store."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any, Final, Self

import yaml

from tests.harness.ports import LOOPBACK, ReservedPort
from tests.harness.program import Program
from tests.harness.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

ANSWER_SECONDS: Final = 5.0


class Registry:
    """`docker-registry serve`, running; `address` is what stands before a repository's name. It speaks plain http."""

    def __init__(self, folder: Path) -> None:
        self._port = ReservedPort()
        self.address = f"{LOOPBACK}:{self._port.number}"
        configuration: dict[str, Any] = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(folder / "store")}},
            "http": {"addr": self.address},
        }
        file = folder / "registry.yaml"
        file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
        self._program = Program(["docker-registry", "serve", str(file)], folder, log="registry.log")

    def __enter__(self) -> Self:
        try:
            until(self._answers, "the registry to answer", timeout_seconds=20)
        except AssertionError:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._program.end()
        self._port.release()

    def _answers(self) -> bool:
        self._program.check()
        connection = http.client.HTTPConnection(self.address, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status == http.client.OK
        except ConnectionRefusedError:
            return False
        finally:
            connection.close()
