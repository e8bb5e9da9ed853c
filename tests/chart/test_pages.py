"""What docs/kubernetes.md shows is true of the chart: its values render, and its files and values are there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest
import yaml

from tests.chart.helm import (
    CHART,
    NEEDED,
    NEWEST,
    RELEASE,
    ROOT,
    SHARED,
    VERSIONS,
    needs_helm,
    parsed,
    refusal,
    run_helm,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_helm

PAGE: Final = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
README: Final = (CHART / "README.md").read_text(encoding="utf-8")
EXAMPLES: Final = [
    text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "rules" not in yaml.safe_load(text)
]
"""All but the rules of a metrics adapter, which are no values."""


@pytest.mark.parametrize("text", EXAMPLES, ids=[next(iter(yaml.safe_load(text))) for text in EXAMPLES])
def test_an_example_renders(text: str, tmp_path: Path) -> None:
    """What is pasted from the page is taken, with no more than a Secret's name beside it."""
    values = tmp_path / "values.yaml"
    values.write_text(text, encoding="utf-8")
    arguments = ("--values", str(values), "--set", NEEDED[0], "--namespace", "fal")
    assert "kind: Deployment" in run_helm(NEWEST, "template", RELEASE, str(CHART), *arguments)


def test_a_policy_comes_out_of_a_file_as_it_is(tmp_path: Path) -> None:
    """`--set-file policy=policy.yaml`: what was checked is what is installed, comments and all."""
    policies = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
    [text] = re.findall(r"```yaml\n(.*?)```", policies, re.DOTALL)
    file = tmp_path / "policy.yaml"
    file.write_text(f"# ours\n\n{text}", encoding="utf-8")
    arguments = ("--set", NEEDED[0], "--set-file", f"policy={file}", "--show-only", "templates/configmap-policy.yaml")
    [found] = parsed(run_helm(NEWEST, "template", RELEASE, str(CHART), *arguments))
    assert found["data"]["policy.yaml"] == file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "  # indented more than the rest\n\nteams:\n  - id: a\n\n\n  # and the end\n",
        "\n\nteams: []\n",
        "teams: []",
        "# spaces at the end  \nteams: []   \n  \n",
        '# "quoted" {{ .Values.x }}\r\nteams: []\r\n',
        f"# {'long ' * 99}\nteams: []\n",
    ],
)
def test_a_policy_as_text_is_kept_to_the_byte(text: str, tmp_path: Path) -> None:
    """However it is indented: what the gateway reads is what was written."""
    file = tmp_path / "policy.yaml"
    file.write_bytes(text.encode())
    arguments = ("--set", NEEDED[0], "--set-file", f"policy={file}", "--show-only", "templates/configmap-policy.yaml")
    for version in VERSIONS:
        [found] = parsed(run_helm(version, "template", RELEASE, str(CHART), *arguments))
        assert found["data"]["policy.yaml"] == text


def test_the_examples_of_ingresses_are_those_that_are_tested() -> None:
    """The annotations on the page are those of the scenarios, to the letter."""
    for name in ("traefik", "nginx", "alb"):
        scenario = yaml.safe_load((CHART / "ci" / f"ingress-{name}-values.yaml").read_text(encoding="utf-8"))
        [shown] = [
            found["ingress"]["annotations"]
            for found in map(yaml.safe_load, EXAMPLES)
            if found.get("ingress", {}).get("className") == scenario["ingress"]["className"]
        ]
        assert shown.items() <= scenario["ingress"]["annotations"].items()


def test_every_value_that_is_named_is_there() -> None:
    """A value that the page names can be looked up in the chart's README."""
    known = set(re.findall(r"^\| `([^`]+)` \|", README, re.MULTILINE))
    known |= {".".join(name.split(".")[:length]) for name in known for length in range(1, name.count(".") + 1)}
    tops = {name.split(".")[0] for name in known}
    words = set(re.findall(r"`([a-zA-Z]+(?:\.[a-zA-Z_]+)*)`", PAGE)) - {"policy.yaml"}
    named = {word for word in words if word.split(".")[0] in tops}
    assert len(named) > 30
    assert {name for name in named if name not in known} == set()


def test_every_refusal_that_is_named_is_one() -> None:
    """The first column of the last table says what the chart says."""
    said = refusal("replicaCount=2", "terminationGracePeriodSeconds=30")
    said += refusal(*SHARED, "autoscaling.enabled=true", "keda.enabled=true")
    said += refusal(*NEEDED, "nonsense=1") + refusal("extraEnv[0].name=FALGW_HOST", "extraEnv[0].value=x")
    _, _, table = PAGE.partition("## When it is refused")
    sentences = [
        text.strip(" …") for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE) for text in row.split("`")
    ]
    for sentence in [text for text in sentences if text and text != ","]:
        assert sentence in said, sentence


def test_every_link_leads_somewhere() -> None:
    """Files that the page names by links are there, and so are headings within it."""
    for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    titles = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    headings = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) - headings == set()
    for path in re.findall(r"`((?:ci|files)/[a-z0-9./-]+)`", PAGE):
        assert (CHART / path).exists(), path
