"""The policy's schema for editors, and the pages about it, say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from gateway.config.policy_schema import Document, schema_text
from gateway.config.ruleset import load_ruleset

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "gateway" / "config" / "policy.schema.json"
PAGE = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
REGENERATE = "policy.schema.json is not what gateway.config.policy_schema.schema_text() returns: write that text there"


def fields(schema: dict[str, Any]) -> dict[str, set[str]]:
    """Return the names of the fields of each object in a schema, by the object's name."""
    objects = {"Document": schema, **schema["$defs"]}
    return {name: set(part["properties"]) for name, part in objects.items()}


def test_the_schema_file_is_that_of_the_models() -> None:
    """An editor knows what the gateway knows: the file is generated, and generated anew with each change."""
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), REGENERATE


def test_the_schema_tells_what_the_models_tell() -> None:
    """No unknown fields anywhere, no null, and a window where the unit has one."""
    schema = json.loads(schema_text())
    assert all(part["additionalProperties"] is False for part in [schema, *schema["$defs"].values()])
    assert '"null"' not in schema_text()
    assert fields(schema)["Document"] == set(Document.model_fields)
    assert schema["$defs"]["Limit"]["then"] == {"properties": {"window": False, "burst": False}}
    assert schema["$defs"]["Limit"]["else"] == {"required": ["window"]}
    assert schema["$defs"]["Key"]["required"] == ["id", "team", "digests"]


def test_the_page_names_every_field() -> None:
    """Each field of each part of the policy stands on the page, in backquotes."""
    shown = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`\n]+)`", PAGE))))
    missing = {name for names in fields(json.loads(schema_text())).values() for name in names} - shown
    assert not missing


def test_the_example_on_the_page_loads() -> None:
    """What newcomers paste works."""
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    rules = load_ruleset(example, origin="docs/policy.md")
    assert rules.keys == (("web-prod", "design"),)
    assert set(yaml.safe_load(example)) <= set(Document.model_fields)
