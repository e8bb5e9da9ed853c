"""A Kubernetes control plane on loopback: etcd, the API server with its admission, and the controllers. No node.

The decision it carries: what a chart can get wrong is judged by the API server and its controllers, and by nothing that
is run on a node. So there is none: a pod that is let in stays pending, and that it was let in is the proof.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from typing import TYPE_CHECKING, Any, Final, Self

from tests.e2e.tools import ROOT
from tests.harness.ports import LOOPBACK, ReservedPort
from tests.harness.program import Program
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROGRAMS: Final = ROOT / ".tools" / "k8s" / "bin"
MODELS: Final = ROOT / ".tools" / "k8s" / "models"
HELM: Final = ROOT / ".tools" / "chart"
KUBECTL: Final = HELM / "kubectl-1.34"
START_SECONDS: Final = 120.0
COMMAND_SECONDS: Final = 120.0
END_SECONDS: Final = 20.0
TOKEN_BYTES: Final = 24
_KUBECONFIG: Final = {
    "apiVersion": "v1",
    "kind": "Config",
    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
    "current-context": "here",
}


class CommandFailed(Exception):  # noqa: N818 - said of a command that may well be meant to fail
    """helm or kubectl ended with another code than 0; the text is what it said."""


class Cluster:
    """The control plane, up until it is left."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = [ReservedPort() for _ in range(4)]
        self._programs: list[Program] = []
        self._token = secrets.token_hex(TOKEN_BYTES)
        self._kubeconfig = folder / "kubeconfig.json"
        self._key = folder / "accounts.key"
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Run kubectl with `text` on its standard input; return what it printed, warnings too."""
        return self._run([str(KUBECTL), *arguments], text=text)

    def helm(self, version: str, *arguments: str) -> str:
        """Run helm of one version; return what it printed."""
        return self._run([str(HELM / f"helm-{version}"), *arguments])

    def objects(self, kinds: str, namespace: str) -> list[dict[str, Any]]:
        """Return all objects of these kinds (`,` between) in a namespace."""
        found = json.loads(self.kubectl("get", kinds, "--namespace", namespace, "--output", "json"))
        return list(found["items"])

    def apply(self, *objects: dict[str, Any]) -> None:
        """Make these objects."""
        self.kubectl("apply", "--filename=-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def make_namespace(self, name: str) -> None:
        """Make a namespace that lets in, and warns of, only pods that meet the standard `restricted`."""
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        until(lambda: self.objects("serviceaccounts", name), "the namespace's account", timeout_seconds=START_SECONDS)

    def close(self) -> None:
        """End all of it, the last started first."""
        for program in reversed(self._programs):
            program.end(timeout_seconds=END_SECONDS)
        self._programs.clear()
        for port in self._ports:
            port.release()

    # -- starting -----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        client, peer, server, _ = (port.number for port in self._ports)
        self._write_credentials(server)
        etcd = f"http://{LOOPBACK}:{client}"
        self._launch(
            "etcd",
            f"--data-dir={self._folder}/etcd",
            *(f"--{name}-client-urls={etcd}" for name in ("listen", "advertise")),
            *(f"--{name}={LOOPBACK_HTTP}{peer}" for name in ("listen-peer-urls", "initial-advertise-peer-urls")),
            f"--initial-cluster=default={LOOPBACK_HTTP}{peer}",
            "--unsafe-no-fsync",
        )
        self._launch(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={server}",
            f"--cert-dir={self._folder}/certificates",
            f"--token-auth-file={self._folder}/tokens.csv",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._key}",
            f"--service-account-signing-key-file={self._key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--endpoint-reconciler-type=none",
        )
        until(self._ready, "the API server to be ready", timeout_seconds=START_SECONDS)
        self._launch(
            "kube-controller-manager",
            f"--kubeconfig={self._kubeconfig}",
            f"--service-account-private-key-file={self._key}",
            "--leader-elect=false",
            "--secure-port=0",
        )

    def _write_credentials(self, server: int) -> None:
        """Write what the API server makes no file of: who the caller is, and the key that signs for accounts.

        Its certificate it makes itself, in `certificates`, and signs it too.
        """
        subprocess.run(["openssl", "genrsa", "-out", str(self._key), "2048"], check=True, capture_output=True)
        (self._folder / "tokens.csv").write_text(f"{self._token},admin,admin,system:masters\n", encoding="utf-8")
        address = f"https://{LOOPBACK}:{server}"
        trusted = str(self._folder / "certificates" / "apiserver.crt")
        whole = {
            **_KUBECONFIG,
            "clusters": [{"name": "here", "cluster": {"server": address, "certificate-authority": trusted}}],
            "users": [{"name": "admin", "user": {"token": self._token}}],
        }
        self._kubeconfig.write_text(json.dumps(whole), encoding="utf-8")

    def _launch(self, name: str, *flags: str) -> None:
        self._programs.append(Program([str(PROGRAMS / name), *flags], self._folder, log=f"{name}.log"))

    def _ready(self) -> bool:
        for program in self._programs:
            program.check()
        try:
            return self.kubectl("get", "--raw=/readyz") == "ok"
        except CommandFailed:
            return False

    def _run(self, command: Sequence[str], *, text: str | None = None) -> str:
        places = {
            "KUBECONFIG": str(self._kubeconfig),
            **{f"HELM_{kind}_HOME": str(self._folder / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")},
        }
        done = subprocess.run(
            command,
            env={**os.environ, **places},
            input=text,
            stdin=None if text is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode:
            raise CommandFailed(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}")
        return done.stdout


LOOPBACK_HTTP: Final = f"http://{LOOPBACK}:"
