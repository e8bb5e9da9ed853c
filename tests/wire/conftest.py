"""Fixtures of the wire tests: the stage, set up once, and a second one for what breaks off."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.harness.gateway import Gateway
from tests.harness.origin import ScriptedOrigin
from tests.wire.stage import MOST_BYTES, Script, Stage, make_keys, stage_policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def set_up(folder: Path) -> Iterator[Stage]:
    """Run a gateway and its origin."""
    script, keys = Script(), make_keys()
    with ScriptedOrigin(script) as origin:
        env = {"FALGW_ORIGIN_OVERRIDES": origin.overrides, "FALGW_MAX_BODY_BYTES": str(MOST_BYTES)}
        with Gateway(folder, policy=stage_policy(keys), env=env) as gateway:
            yield Stage(gateway.wait_ready(), origin, keys=keys, script=script)


@pytest.fixture(scope="session")
def standing_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run the stage for the whole session."""
    with set_up(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture(scope="session")
def standing_rough_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run the second stage for the whole session."""
    with set_up(tmp_path_factory.mktemp("rough-stage")) as stage:
        yield stage


@pytest.fixture
def stage(standing_stage: Stage) -> Stage:
    """Return the stage, its origin answering 200. No upload may break off on it: see `rough_stage`."""
    standing_stage.reset()
    return standing_stage


@pytest.fixture
def rough_stage(standing_rough_stage: Stage) -> Stage:
    """Return a stage for uploads that break off on their way.

    Its origin may hear of them after their test is over, so nothing can be said there of what it has not heard.
    """
    standing_rough_stage.reset()
    return standing_rough_stage


@pytest.fixture
def end() -> Iterator[threading.Event]:
    """Return what ends all streams of the origin; set at the end of the test in any case."""
    event = threading.Event()
    yield event
    event.set()
