"""The rules that the chart installs, run by Prometheus' own tool on made-up series, and their pages in the runbook."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.harness.promql import declared_labels, read

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "deploy" / "helm" / "fal-gateway" / "files" / "rules.yaml"
RUNBOOK: Final = "docs/runbook.md"
PAGE: Final = (ROOT / RUNBOOK).read_text(encoding="utf-8")
CASES: Final = sorted(Path(__file__).parent.glob("*.yaml"))
SEVERITIES: Final = ("page", "ticket")
PARTS: Final = ("Means", "Felt", "Look", "Do", "Change")
"""What each entry of the runbook tells, in this order."""

EVENTS: Final = re.compile(r"the log's ((?:`[a-z_]+`(?:,? (?:and |or )?)?)+)")
"""Where a page says that events are in the log."""


def rules() -> list[dict[str, Any]]:
    """Return all rules, in the order in which Prometheus reads them."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Return the alerts."""
    return [rule for rule in rules() if "alert" in rule]


def cases() -> list[dict[str, Any]]:
    """Return what is tested, of all files."""
    return [case for path in CASES for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]]


def promtool(*arguments: str) -> None:
    """Run Prometheus' tool; AssertionError with what it says where it is not content."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr


def known_labels() -> dict[str, frozenset[str]]:
    """Return the labels of everything that rules may ask for: exported, or recorded."""
    known = declared_labels()
    for rule in rules():
        if "record" in rule:
            known[rule["record"]] = read(rule["expr"], known).labels
    return known


def entries() -> dict[str, str]:
    """Return the runbook's entries by the alert's name."""
    _, *parts = re.split(r"^### ", PAGE, flags=re.MULTILINE)
    return {name: text.split("\n## ")[0] for name, _, text in (part.partition("\n") for part in parts)}


def test_prometheus_takes_the_file() -> None:
    """Every expression and every template can be read."""
    promtool("check", "rules", str(RULES))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_rules_say_what_they_should(path: Path) -> None:
    """Each of them on series that are to alert, on healthy ones, and on too little of both."""
    promtool("test", "rules", str(path))


def test_every_rule_is_tested() -> None:
    """Each alert is seen to fire and seen not to, and a value of each recorded series is looked at."""
    checks = [check for case in cases() for check in case.get("alert_rule_test", [])]
    names = {rule["alert"] for rule in alerts()}
    assert {check["alertname"] for check in checks if check["exp_alerts"]} == names
    assert {check["alertname"] for check in checks if not check["exp_alerts"]} == names
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    valued = [check for case in cases() for check in case.get("promql_expr_test", []) if check["exp_samples"]]
    assert {sample["labels"].partition("{")[0] for check in valued for sample in check["exp_samples"]} == recorded


def test_rules_ask_for_what_there_is() -> None:
    """Each metric is exported or recorded before it is used, and each label that a rule names can be there."""
    known = declared_labels()
    for rule in rules():
        found = read(rule["expr"], known)
        assert found.faults == [], rule
        if "record" in rule:
            known[rule["record"]] = found.labels


def test_templates_name_labels_that_are_there() -> None:
    """No notification has a hole where a label should be."""
    known = known_labels()
    for rule in alerts():
        named = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert named <= read(rule["expr"], known).labels, rule["alert"]


def test_alerts_tell_what_a_person_needs() -> None:
    """How urgent it is, what is the matter in a few words, and where to read on."""
    for rule in alerts():
        assert rule["labels"]["severity"] in SEVERITIES
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"{RUNBOOK}#{rule['alert'].lower()}"


def test_the_runbook_has_an_entry_for_each_alert() -> None:
    """And for nothing else, each with the same five parts, and with the severity that the rule has."""
    found = entries()
    assert list(found) == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        text = found[rule["alert"]]
        assert tuple(re.findall(r"^\*\*(\w+)", text, re.MULTILINE)) == PARTS, rule["alert"]
        assert text.lstrip().startswith(f"*{rule['labels']['severity']}"), rule["alert"]


def test_the_runbook_s_queries_ask_for_what_there_is() -> None:
    """What is pasted at night is PromQL, of metrics and labels that exist."""
    known = known_labels()
    queries = re.findall(r"```promql\n(.*?)```", PAGE, re.DOTALL)
    assert queries
    for query in queries:
        for line in filter(None, query.split("\n")):
            assert read(line, known).faults == [], line


def test_the_runbook_s_events_are_logged() -> None:
    """An event that the runbook looks for in the log is one that the gateway writes."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "gateway").rglob("*.py"))
    told = {name for names in EVENTS.findall(PAGE) for name in re.findall(r"`([a-z_]+)`", names)}
    assert len(told) >= len(SEVERITIES)
    assert {name for name in told if f'"{name}"' not in source} == set()
