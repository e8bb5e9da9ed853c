"""The Dockerfile as a text: a linter's verdict, and what it promises that can be read off it. `make e2e` builds it."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from gateway.config.settings import setting_names
from gateway.version import VERSION

ROOT: Final = Path(__file__).parent.parent.parent
DOCKERFILE: Final = ROOT / "deploy" / "image" / "Dockerfile"
HADOLINT: Final = Path(sys.executable).parent / "hadolint"
SHELL_FORM: Final = re.compile(r"^(?:ENTRYPOINT|CMD|RUN) (?!\[)", re.MULTILINE)


def stages() -> list[str]:
    """Return the text of each stage, from its FROM on, with continued lines joined and comments left out."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return ["FROM" + part for part in text.split("\nFROM")[1:]]


def test_hadolint_has_nothing_to_say() -> None:
    """Every rule holds, or is set aside in the file with the reason beside it."""
    done = subprocess.run([HADOLINT, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_last_stage_installs_nothing_and_needs_no_shell() -> None:
    """Everything in it is in exec form, so signals reach the gateway itself, and a base without a shell would do."""
    builder, last = stages()
    assert SHELL_FORM.findall(last) == []
    assert not re.search(r"\b(?:apt|apt-get|pip|sh|bash)\b", last)
    assert SHELL_FORM.search(builder)


def test_both_stages_stand_on_the_base_that_is_given() -> None:
    """What was compiled for one Python runs on the same one."""
    assert [re.match(r"FROM (\S+)", stage)[1] for stage in stages()] == ["${BASE}", "${BASE}"]  # type: ignore[index]


def test_its_user_is_a_number_other_than_root() -> None:
    """Kubernetes refuses a name where `runAsNonRoot` is asked for, since it can't tell whose it is."""
    (user,) = re.findall(r"^USER (\S+)$", stages()[-1], re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)


def test_it_tells_the_release_and_sets_what_the_gateway_knows() -> None:
    """The version's label is the package's version; every variable that it sets is a setting."""
    last = stages()[-1]
    assert f"ARG VERSION={VERSION}\n" in last
    assert set(re.findall(r"\b(FALGW_\w+)=", last)) <= set(setting_names())


def test_what_it_copies_is_let_in_and_nothing_else() -> None:
    """The context is what the builder copies: no environment, database or credential of a working tree."""
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", stages()[0], re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    sources -= {source for source in sources if source.rpartition("/")[0] in sources}
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == sources
    assert not any(fnmatch.fnmatch(name, pattern) for name in (".venv", "fal-gateway.db") for pattern in sources)
