"""Prints the chart's README.md, made out of a values.yaml: one table, a row for each value.

The decision: what a value means is written once, beside it, as a comment that begins with `# --`. A value with such a
comment is a row, whole; one without is a heading of rows, and a leaf without is an error.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MARK: Final = "# -- "
LONGEST_DEFAULT: Final = 60
TYPES: Final = {"bool": "boolean", "dict": "object", "float": "number", "int": "integer", "list": "list", "str": "text"}
HEAD: Final = """\
# fal-gateway: the Helm chart
One gateway for a whole organisation's calls to fal.ai, with keys, limits, budgets, a ledger and metrics. How it is
installed, upgraded, sized and put behind an ingress: [docs/kubernetes.md](../../../docs/kubernetes.md).

```
kubectl create namespace fal
kubectl -n fal create secret generic fal --from-literal=FAL_KEY=…
helm -n fal install fal-gateway deploy/helm/fal-gateway --set existingSecret=fal
```

Without a fal account: `--set emulator.enabled=true` in place of the Secret. `values-prod.yaml` holds values to start a
production with, `ci/` a file for each way of running it that is tested. Kubernetes 1.30 or newer; helm 3.17 and 4.1 are
tested. A value that is unknown, or of the wrong type, is refused, and so is a combination that could not work.

## Values
This table is made out of `values.yaml` (`make chart-readme`).

| value | type | default | meaning |
|---|---|---|---|
"""


class UndocumentedError(Exception):
    """A value has no comment that says what it means."""


@dataclass(frozen=True, slots=True)
class Row:
    """A value as the table shows it; `default` is a value of YAML."""

    name: str
    default: object
    meaning: str

    @property
    def text(self) -> str:
        """The row in Markdown."""
        shown = json.dumps(self.default, ensure_ascii=False)
        default = f"`{shown}`" if len(shown) <= LONGEST_DEFAULT else "see `values.yaml`"
        cells = (f"`{self.name}`", TYPES[type(self.default).__name__], default, self.meaning)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def rows(text: str) -> Iterator[Row]:
    """Yield the rows of a values file; UndocumentedError where a leaf has no comment."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)  # noqa: S101 (of the type checker's; the schema says so, too)
    yield from _rows_below(root, text.splitlines(), ())


def readme(text: str) -> str:
    """Return the page that a values file makes."""
    return HEAD + "".join(f"{row.text}\n" for row in rows(text))


def _rows_below(mapping: yaml.MappingNode, lines: Sequence[str], path: tuple[str, ...]) -> Iterator[Row]:
    for key, value in mapping.value:
        here = (*path, str(key.value))
        meaning = _comment_above(lines, key.start_mark.line)
        if meaning:
            yield Row(".".join(here), _plain(value), meaning)
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _rows_below(value, lines, here)
        else:
            raise UndocumentedError(f"{'.'.join(here)}: no comment with `{MARK}` above it")


def _comment_above(lines: Sequence[str], line: int) -> str:
    """Return the comment that ends above a line, from its mark on; nothing where there is no mark."""
    told: list[str] = []
    for above in reversed(lines[:line]):
        comment = above.strip()
        if not comment.startswith("#"):
            return ""
        if comment.startswith(MARK):
            return " ".join([comment.removeprefix(MARK), *reversed(told)])
        told.append(comment.removeprefix("#").strip())
    return ""


def _plain(node: yaml.Node) -> object:
    return yaml.safe_load(yaml.serialize(node, Dumper=yaml.SafeDumper))


def main(values: str) -> int:
    """Print the page that a values file makes; return an exit code."""
    try:
        page = readme(Path(values).read_text(encoding="utf-8"))
    except UndocumentedError as fault:
        sys.stderr.write(f"{values}: {fault}\n")
        return 1
    sys.stdout.write(page)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
