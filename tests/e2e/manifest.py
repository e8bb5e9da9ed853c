"""A rendered pod as podman takes it: what a kubelet would make of its containers and volumes.

The decision it carries: what is not known here is a failure. So nothing that the chart says of a container is left out
unseen, and what runs in a test is what would run in a cluster.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Manifest = dict[str, Any]

READ: Final = {"args", "command", "env", "image", "resources", "securityContext", "volumeMounts", "workingDir"}
NOT_FOR_PODMAN: Final = {
    "imagePullPolicy",  # the image is here
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "restartPolicy",
    "startupProbe",
}
"""What a kubelet does by itself, and the tests do in its place where it matters."""

SECURED: Final[Manifest] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
UNITS: Final = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
GROUP_WRITES: Final = 0o2775


@dataclass(frozen=True, slots=True)
class Room:
    """What the containers of a pod have in common: its security, and its volumes as folders here."""

    security: Manifest
    volumes: Mapping[str, Path]


def furnish(spec: Manifest, config_maps: Mapping[str, Mapping[str, str]], folder: Path) -> Room:
    """Make the volumes of a pod below `folder`: empty ones belong to its group, ConfigMaps to root."""
    security = spec["securityContext"]
    volumes = {}
    for volume in spec.get("volumes", []):
        place = folder / volume["name"]
        place.mkdir(parents=True)
        match volume:
            case {"emptyDir": {**options}} if not options:
                os.chown(place, 0, security["fsGroup"])
                place.chmod(GROUP_WRITES)
            case {"configMap": {"name": name, **options}} if not options:
                for file, text in config_maps[name].items():
                    (place / file).write_text(text, encoding="utf-8")
            case _:
                raise AssertionError(f"no such volume is made here: {volume}")
        volumes[volume["name"]] = place
    return Room(security, volumes)


def options(container: Manifest, room: Room) -> list[str]:
    """Return podman's options, image and arguments for a container of the room."""
    assert container.keys() <= READ | NOT_FOR_PODMAN, container.keys() - READ - NOT_FOR_PODMAN
    given = [*container["command"], *container["args"], *(entry["value"] for entry in container.get("env", []))]
    assert not [text for text in given if "$(" in text], "Kubernetes would fill in a variable here"
    return [
        *_privileges(container["securityContext"], room.security),
        f"--memory={size_bytes(container['resources']['limits']['memory'])}",
        *([f"--workdir={container['workingDir']}"] if "workingDir" in container else []),
        *(f"--env={entry['name']}={entry['value']}" for entry in container.get("env", [])),
        *(f"--volume={_mount(mount, room)}" for mount in container.get("volumeMounts", [])),
        f"--entrypoint={json.dumps(container['command'])}",
        container["image"],
        *container["args"],
    ]


def size_bytes(quantity: str) -> int:
    """Return Kubernetes's quantity of memory in bytes."""
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


def _privileges(own: Manifest, of_pod: Manifest) -> list[str]:
    """Return the options for a locked-down container. podman's own seccomp profile is the runtime's default."""
    assert own == SECURED, own
    user, group = of_pod["runAsUser"], of_pod["runAsGroup"]
    assert of_pod["runAsNonRoot"]
    assert user
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    return [
        f"--user={user}:{group}",
        f"--group-add={of_pod['fsGroup']}",
        "--read-only",
        "--read-only-tmpfs=false",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
    ]


def _mount(mount: Manifest, room: Room) -> str:
    assert mount.keys() <= {"name", "mountPath", "readOnly"}, mount
    return f"{room.volumes[mount['name']]}:{mount['mountPath']}:{'ro' if mount.get('readOnly') else 'rw'}"
