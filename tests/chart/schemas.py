"""Kubernetes's own schemas, as the package kubernetes-validate brings them, asked strictly.

The decision: its schemas are used and not its `validate`, which reads a file of megabytes again for each object; here a
validator is made once for each kind and version.
"""

from __future__ import annotations

import functools
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import jsonschema
from referencing import Registry, Resource

if TYPE_CHECKING:
    from collections.abc import Iterator

KUBERNETES: Final = ("1.31", "1.34", "1.37")
FOREIGN: Final = ("gateway.networking.k8s.io/", "monitoring.coreos.com/", "keda.sh/", "external-secrets.io/")
"""Beginnings of `apiVersion` that Kubernetes itself does not know."""


def faults(manifest: dict[str, Any], kubernetes: str) -> Iterator[str]:
    """Yield what an API server of that version would find wrong, unknown fields too."""
    group = manifest["apiVersion"].replace("/", "-")
    first, _, version = group.rpartition("-")
    name = f"{manifest['kind'].lower()}-{first.partition('.')[0] + '-' if first else ''}{version}"
    for fault in _validator(kubernetes, name).iter_errors(manifest):
        place = ".".join(str(step) for step in fault.absolute_path)
        yield f"{manifest['kind']} {manifest['metadata']['name']}: {place}: {fault.message}"


@functools.cache
def _validator(kubernetes: str, name: str) -> Any:  # noqa: ANN401 (jsonschema has no types)
    schema = _content(kubernetes, f"{name}.json")
    return jsonschema.Draft202012Validator(schema, registry=_registry(kubernetes))


@functools.cache
def _registry(kubernetes: str) -> Registry[Any]:
    definitions = Resource.from_contents(_content(kubernetes, "_definitions.json"))
    return definitions @ Registry()


def _content(kubernetes: str, name: str) -> Any:  # noqa: ANN401 (JSON)
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{kubernetes}.0-local-strict"
    return json.loads((folder / name).read_text(encoding="utf-8"))
