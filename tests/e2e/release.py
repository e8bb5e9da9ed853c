"""The chart's trial as it would be installed: the pod of its Deployment, its Services, and the pods of `helm test`.

There is no kubelet, and no network but loopback: podman runs the containers as rendered, all of them in one network
that has nothing else in it, so that every port is the chart's own default. The pod's address is another one than
127.0.0.1, so that what listens there alone can't be reached. The names of the Services lead to it. A Service whose port
is its pod's needs nothing more; before another one stands `forward.py`, in the place of kube-proxy.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from tests.chart.helm import NAMESPACE, objects, scenario
from tests.e2e.container import Container
from tests.e2e.manifest import Manifest, furnish, options
from tests.e2e.tools import IMAGE, LIMITS, run, store_environment
from tests.harness.process import clean_environment
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

REGISTRY: Final = "image.registry=localhost"
FORWARD: Final = Path(__file__).parent / "forward.py"
MAY_TAKE_ANY_PORT: Final = ("--user=0", "--cap-drop=all", "--cap-add=net_bind_service")
POD: Final = "127.0.0.2"
PAUSE: Final = "import signal; signal.pause()"
START_SECONDS: Final = 60.0
TEST_SECONDS: Final = 150.0
ASK: Final = """
import sys, urllib.error, urllib.request
try:
    with urllib.request.urlopen(sys.argv[1], timeout=float(sys.argv[2])) as answer:
        print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
except OSError as fault:
    print(0, fault)
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a pod of `helm test` ended."""

    code: int
    output: str
    errors: str


class TestPod:
    """A pod of `helm test`, running."""

    __test__ = False

    def __init__(self, spec: Manifest, *, flags: Iterable[str], folder: Path) -> None:
        self._container = Container()
        [container] = spec["containers"]
        assert spec["restartPolicy"] == "Never"
        name = f"--name={self._container.name}"
        self._process = subprocess.Popen(
            ["podman", "run", name, *flags, *options(container, furnish(spec, {}, folder))],
            env=clean_environment(store_environment()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> Ended:
        """Return how it ended, and take it away."""
        try:
            output, errors = self._process.communicate(timeout=TEST_SECONDS)
        finally:
            self._container.remove()
            self._process.communicate()
        return Ended(self._process.returncode, output, errors)


class Release:
    """`helm install` of the trial: all is started at entering, and away after leaving."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hosts = folder / "hosts"
        self._objects = objects(REGISTRY, scenario=scenario("emulator"))
        [deployment] = self._of_kind("Deployment")
        self._template = deployment["spec"]["template"]
        [self.gateway] = self._template["spec"]["containers"]
        self._ports = {port["name"]: port["containerPort"] for port in self.gateway["ports"]}
        self._network = Container()
        self._forwards: list[Container] = []
        self._pod: dict[str, Container] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except AssertionError:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def probe(self, kind: str) -> int:
        """Ask what a probe of the gateway asks; return the status, 0 where there is no answer in its time."""
        probe = self.gateway[f"{kind}Probe"]
        return self.ask(probe["httpGet"]["port"], probe["httpGet"]["path"], timeout_seconds=probe["timeoutSeconds"])[0]

    def ask(self, port: str, path: str, *, timeout_seconds: float = 10.0) -> tuple[int, str]:
        """GET a path from one of the gateway's ports; return status and content, 0 and the fault without an answer."""
        url = f"http://{POD}:{self._ports[port]}{path}"
        told = self._network.execute("python3", "-c", ASK, url, str(timeout_seconds))
        status, _, text = told.partition(" ")
        return int(status), text

    def start_test(self, name: str, **env: str) -> TestPod:
        """Start a pod of `helm test`; `env` overrides variables of it."""
        [pod] = [each for each in self._of_kind("Pod") if each["metadata"]["name"].endswith(f"-test-{name}")]
        spec = json.loads(json.dumps(pod["spec"]))
        for entry in spec["containers"][0]["env"]:
            entry["value"] = env.get(entry["name"], entry["value"])
        return TestPod(spec, flags=self._flags(), folder=self._folder)

    def end_gateway(self) -> None:
        """Ask the gateway to end, as a kubelet does; its emulator is there until it has."""
        run("podman", "kill", "--signal=TERM", self._pod["gateway"].name)

    def wait_for_the_end(self) -> int:
        """Return the gateway's exit code; a Service then leads to nobody."""
        code = int(run("podman", "wait", self._pod["gateway"].name))
        for forward in self._forwards:
            forward.remove()
        return code

    def close(self) -> None:
        """Take everything away; harmless when done twice."""
        for container in (*self._forwards, *reversed(self._pod.values()), self._network):
            container.remove()

    def _start(self) -> None:
        names = [f"{service['metadata']['name']}.{NAMESPACE}" for service in self._services()]
        self._hosts.write_text(f"127.0.0.1 localhost\n{POD} {' '.join(names)}\n", encoding="utf-8")
        self._run(self._network, *LIMITS, "--network=none", '--entrypoint=["python3", "-c"]', IMAGE, PAUSE)
        spec = self._template["spec"]
        config_maps = {each["metadata"]["name"]: each["data"] for each in self._of_kind("ConfigMap")}
        room = furnish(spec, config_maps, self._folder)
        for container in (*spec["initContainers"], *spec["containers"]):
            self._pod[container["name"]] = Container()
            self._join(self._pod[container["name"]], *options(container, room))
        until(self._ready, "the gateway to be ready", timeout_seconds=START_SECONDS)
        for service in self._services():
            self._lead(service)

    def _ready(self) -> bool:
        container = self._pod["gateway"]
        assert container.inspect("State.Running"), run("podman", "logs", container.name)
        return self.probe("startup") == self.probe("readiness") == 200

    def _lead(self, service: Manifest) -> None:
        """Let a Service lead to the pod, if it is the pod that it selects."""
        assert service["spec"]["selector"].items() <= self._template["metadata"]["labels"].items()
        [port] = service["spec"]["ports"]
        target = self._ports[port["targetPort"]]
        if port["port"] == target:
            return
        forward = Container()
        self._forwards.append(forward)
        script = f"--volume={FORWARD}:/forward.py:ro"
        command = (*MAY_TAKE_ANY_PORT, script, "--entrypoint=python3", IMAGE, "/forward.py", POD)
        self._join(forward, *command, str(port["port"]), str(target))

    def _services(self) -> Iterator[dict[str, Any]]:
        return self._of_kind("Service")

    def _of_kind(self, kind: str) -> Iterator[dict[str, Any]]:
        return (each for each in self._objects if each["kind"] == kind)

    def _flags(self) -> tuple[str, ...]:
        """Return what brings a container into the network, where it finds the Services by their names."""
        return *LIMITS, f"--network=container:{self._network.name}", f"--volume={self._hosts}:/etc/hosts:ro"

    def _join(self, container: Container, *command: str) -> None:
        self._run(container, *self._flags(), *command)

    @staticmethod
    def _run(container: Container, *command: str) -> None:
        run("podman", "run", "--detach", f"--name={container.name}", *command)
