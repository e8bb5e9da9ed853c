"""What the chart hands to the gateway works: its policies pass, and its `helm test` tells a gateway from what is none.

The pods are run here as processes: their script, in Python, against a gateway with the environment and the policy that
the trial with the emulator renders.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway.cli.main import main
from tests.chart.helm import SCENARIOS, environment, needs_helm, objects, of_kind, scenario
from tests.harness.gateway import Gateway
from tests.harness.process import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.emulator import Emulator

pytestmark = needs_helm

TRIAL: Final = scenario("emulator")
PLACES: Final = {"DATA_URL", "OPS_URL"}
OWN_PLACE: Final = frozenset(
    {
        "FALGW_POLICY",
        "FALGW_PORT",
        "FALGW_OPS_PORT",
        "FALGW_DATABASE_URL",
        "FALGW_SHUTDOWN_DELAY",
        "FALGW_DRAIN_TIMEOUT",
    }
)
"""What a pod has room for, and a test sets by itself."""


def policies(path: Path) -> list[str]:
    """Return the policies that a scenario puts into ConfigMaps."""
    return [
        found["data"]["policy.yaml"]
        for found in of_kind("ConfigMap", scenario=path)
        if "policy.yaml" in found.get("data", {})
    ]


WITH_POLICY: Final = ("emulator-policy", "emulator", "replicas", "sqlite", "team-keys")


@pytest.mark.parametrize("name", WITH_POLICY)
def test_the_policy_passes_the_check(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Helm makes of a policy is still one: numbers, dates and quoted amounts come through."""
    for variable in [known for known in os.environ if known.startswith(("FAL_", "FALGW_"))]:
        monkeypatch.delenv(variable)
    [policy] = policies(scenario(name))
    file = tmp_path / "policy.yaml"
    file.write_text(policy, encoding="utf-8")
    assert main(["check", str(file)]) == 0


def test_every_scenario_with_a_policy_is_checked() -> None:
    """A scenario that is added with a policy is not forgotten above."""
    assert [path for path in SCENARIOS if policies(path)] == [scenario(name) for name in WITH_POLICY]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, emulator: Emulator) -> Iterator[Gateway]:
    """Run the gateway as the trial renders it, the emulator behind it."""
    [policy] = policies(TRIAL)
    found = {name: value for name, value in environment(scenario=TRIAL).items() if name not in OWN_PLACE}
    found["FALGW_ORIGIN_OVERRIDES"] = found["FALGW_ORIGIN_OVERRIDES"].replace(":8090", f":{emulator.port}")
    with Gateway(tmp_path_factory.mktemp("trial"), policy=policy, env=found) as gateway:
        yield gateway.wait_ready()


def prove(name: str, *, data: str, ops: str) -> subprocess.CompletedProcess[str]:
    """Run a pod of `helm test` against these addresses."""
    [pod] = [found for found in objects(scenario=TRIAL) if found["metadata"]["name"].endswith(f"-test-{name}")]
    [test] = pod["spec"]["containers"]
    assert test["command"] == ["python3", "-c"]
    given = {entry["name"]: entry["value"] for entry in test["env"]}
    assert given.keys() >= PLACES
    env = clean_environment({**given, "DATA_URL": data, "OPS_URL": ops})
    return subprocess.run(
        [sys.executable, "-c", *test["args"]], env=env, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("name", ["ready", "metrics", "stream"])
def test_helm_test_proves_a_gateway_that_works(name: str, trial: Gateway) -> None:
    """Each pod ends well against a gateway that is as the chart installs it."""
    done = prove(name, data=trial.url.removesuffix("/api/fal/proxy"), ops=trial.ops)
    assert done.returncode == 0, done.stdout + done.stderr


class Impostor(BaseHTTPRequestHandler):
    """Answers at once, and wrongly: ready but without keys, metrics without families, a stream that was held back."""

    def do_GET(self) -> None:
        """Answer for the ops listener."""
        self._answer("application/json", b'{"status": "ready"}' if self.path == "/readyz" else b"up 1\n")

    def do_POST(self) -> None:
        """Answer a call with all events at once."""
        self.rfile.read(int(self.headers["content-length"]))
        self._answer("text/event-stream", b'data: {"n": 1}\n\n' * 5)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, content_type: str, content: bytes) -> None:
        self.send_response(200)
        for name, value in (("content-type", content_type), ("x-accel-buffering", "no")):
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture(scope="module")
def impostor() -> Iterator[str]:
    """Run what only looks like a gateway; return its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Impostor) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("name", "told"),
    [("ready", "unexpected: (200, 'text/event-stream'"), ("metrics", "missing families"), ("stream", "held them back")],
)
def test_helm_test_denies_what_only_looks_like_one(name: str, told: str, impostor: str) -> None:
    """Each pod fails, and says why, where something answers and the function is not there."""
    done = prove(name, data=impostor, ops=impostor)
    assert done.returncode != 0
    assert told in done.stderr


def test_the_stream_is_proven_where_there_is_a_key() -> None:
    """A stream is billed, so the pod is there for the emulator, and for a key that was given for it."""

    def pod_names(path: Path) -> set[str]:
        return {found["metadata"]["name"] for found in objects(scenario=path) if found["kind"] == "Pod"}

    assert "gw-fal-gateway-test-stream" not in pod_names(scenario("default"))
    assert "gw-fal-gateway-test-stream" not in pod_names(scenario("emulator-policy"))
    assert "gw-fal-gateway-test-stream" in pod_names(scenario("credential-file"))


def test_the_emulator_is_there_before_the_gateway_and_after_it() -> None:
    """It is a sidecar of Kubernetes's own kind, on loopback alone: it shows the credentials that it is given."""
    spec: dict[str, Any] = next(found for found in objects(scenario=TRIAL) if found["kind"] == "Deployment")
    [sidecar] = spec["spec"]["template"]["spec"]["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["args"] == ["emulator", "--host", "127.0.0.1", "--port", "8090"]
    assert ":8090" in environment(scenario=TRIAL)["FALGW_ORIGIN_OVERRIDES"]
