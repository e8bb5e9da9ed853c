"""The real gateway as a process of its own: free ports, a policy file, its log read back, its metrics parsed."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.harness.client import RawClient
from tests.harness.messages import PROXY_PATH
from tests.harness.ports import LOOPBACK, ReservedPort
from tests.harness.process import GATEWAY, GatewayProcess
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from prometheus_client.samples import Sample

FAL_KEY: Final = "fal-key-id:fal-canary-secret-7f3a91"
PREFIX: Final = "fal_gateway_"
START_SECONDS: Final = 20.0
OPS_SECONDS: Final = 5.0
DEFAULTS: Final = (
    ("FAL_KEY", FAL_KEY),
    ("FALGW_SHUTDOWN_DELAY", "0"),
    ("FALGW_DRAIN_TIMEOUT", "5"),
    ("FALGW_LOG_FORMAT", "json"),
)


@dataclass(frozen=True, slots=True)
class OpsAnswer:
    """An answer of the ops listener."""

    status: int
    text: str

    def json(self) -> Any:  # noqa: ANN401 - JSON
        """Return the content, read as JSON."""
        return json.loads(self.text)


class Metrics:
    """One scrape of `/metrics`, parsed as Prometheus would. Names are said without their prefix `fal_gateway_`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of all series of this name whose labels include these; AssertionError for an unknown name."""
        samples = self._named(name)
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def series(self, name: str) -> list[dict[str, str]]:
        """Return the labels of every series of this name."""
        return [dict(sample.labels) for sample in self._named(name)]

    def table(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the values of all series of this name by the values of these labels, summed over other labels."""
        found: dict[tuple[str, ...], float] = {}
        for sample in self._named(name):
            place = tuple(sample.labels[label] for label in labels)
            found[place] = found.get(place, 0) + sample.value
        return found

    def _named(self, name: str) -> list[Sample]:
        found = [sample for sample in self._samples if sample.name == f"{PREFIX}{name}"]
        assert found, f"no series of {PREFIX}{name} in:\n{self.text}"
        return found


class Gateway:
    """`fal-gateway serve`, running on two free ports.

    `policy` is the text of its policy file (None: it runs without one), `env` overrides every setting chosen here.
    `ports` (data, ops) are reserved by the caller, who also releases them; left out, it reserves two of its own.
    """

    def __init__(  # noqa: PLR0913 - each is one thing that some test changes
        self,
        folder: Path,
        *,
        policy: str | None,
        env: Mapping[str, str],
        workers: int = 1,
        program: Sequence[str] = GATEWAY,
        ports: tuple[ReservedPort, ReservedPort] | None = None,
    ) -> None:
        self._own_ports = (ReservedPort(), ReservedPort()) if ports is None else ()
        self.port, self.ops_port = (reserved.number for reserved in ports or self._own_ports)
        self.policy_file = folder / "policy.yaml"
        settings = {
            **dict(DEFAULTS),
            "FALGW_PORT": str(self.port),
            "FALGW_OPS_PORT": str(self.ops_port),
            "FALGW_WORKERS": str(workers),
        }
        if policy is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.policy_file.write_text(policy, encoding="utf-8")
            settings["FALGW_POLICY"] = str(self.policy_file)
        self.process = GatewayProcess(["serve"], folder=folder, env={**settings, **env}, program=program)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """URL that clients are configured with."""
        return f"http://{LOOPBACK}:{self.port}{PROXY_PATH}"

    @property
    def ops(self) -> str:
        """Base URL of the ops listener."""
        return f"http://{LOOPBACK}:{self.ops_port}"

    @property
    def pid(self) -> int:
        """Process id of the process that was started: the supervisor."""
        return self.process.pid

    def connect(self) -> RawClient:
        """Open a raw connection to the data listener; the caller closes it."""
        return RawClient(self.port)

    def ask_ops(self, path: str, **fields: str) -> OpsAnswer:
        """GET `path` from the ops listener, with these fields; OSError where it does not listen."""
        connection = http.client.HTTPConnection(LOOPBACK, self.ops_port, timeout=OPS_SECONDS)
        try:
            connection.request("GET", path, headers=fields)
            response = connection.getresponse()
            return OpsAnswer(response.status, response.read().decode())
        finally:
            connection.close()

    def ready(self) -> bool:
        """Say whether `/readyz` answers 200 just now; AssertionError where the gateway has ended."""
        self.process.alive()
        try:
            return self.ask_ops("/readyz").status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False  # not listening yet, or just closing

    def wait_ready(self) -> Self:
        """Wait until `/readyz` answers 200."""
        until(self.ready, f"readiness of the gateway on {self.ops}", timeout_seconds=START_SECONDS)
        return self

    def metrics(self) -> Metrics:
        """Return what `/metrics` shows just now."""
        answer = self.ask_ops("/metrics")
        assert answer.status == http.client.OK, answer
        return Metrics(answer.text)

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the log's events so far, all or those of one name. Every line must be one JSON object."""
        lines = self.process.stderr().split("\n")[:-1]  # what follows the last newline is still being written
        events = [_event(line) for line in lines]
        return [event for event in events if name is None or event["event"] == name]

    def wait_for_event(
        self, name: str, condition: Callable[[dict[str, Any]], bool] = lambda _event: True
    ) -> dict[str, Any]:
        """Wait for a log event of this name that meets `condition`; return the first."""
        found = until(
            lambda: [event for event in self.events(name) if condition(event)],
            f"a log event {name!r} that meets the condition",
        )
        return found[0]

    def rss(self) -> int:
        """Return the resident memory of supervisor, ops process and workers together, in bytes."""
        return self.process.rss()

    def close(self, *, expected: int | None = 0) -> None:
        """SIGTERM, wait, check the exit code, and give the ports back; harmless when done twice."""
        try:
            self.process.stop(expected=expected)
        finally:
            for reserved in self._own_ports:
                reserved.release()

    stop = close


StartGateway = Callable[..., Gateway]
"""What the fixture `start_gateway` gives: `start(origin, *, policy, workers, **settings)`."""


def _event(line: str) -> dict[str, Any]:
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError as fault:
        raise AssertionError(f"a line of the log is no JSON: {line!r}") from fault
    return event
