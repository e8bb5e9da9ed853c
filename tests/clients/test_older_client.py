"""Clients before 1.10, which know no proxy on a server: README.md's lines for them keep the gateway key from fal.

Each call runs where no request can leave for another host than this one: one that would is an error.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pytest

from tests.harness.waiting import until

if TYPE_CHECKING:
    from tests.clients.driver import NodeClient
    from tests.harness.gateway import Gateway

README: Final = Path(__file__).parents[2] / "README.md"
CURRENT: Final = "@fal-ai/client"
OLDER: Final = "fal-client-older"  # package.json: the last one before 1.10
ENDPOINT: Final = "fal-ai/flux/dev"
PROMPT: Final = {"prompt": "a cat"}
CALLS: Final[dict[str, dict[str, Any]]] = {
    "run": {"endpoint": ENDPOINT, "options": {"input": PROMPT}},
    "subscribe": {"endpoint": ENDPOINT, "options": {"input": PROMPT, "mode": "streaming"}},
    "stream": {"endpoint": ENDPOINT, "options": {"input": PROMPT}},
    "upload": {"bytes": 1000},
    "realtime": {"endpoint": ENDPOINT},
}


@pytest.fixture
def older(node: NodeClient) -> NodeClient:
    """Return the older client on Node."""
    return replace(node, package=OLDER)


def snippets(gateway: Gateway, key: str) -> list[str]:
    """Return the code that README.md shows, without its import, for this gateway and this key."""
    found = re.findall(r"```js\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    codes = [re.sub(r"^import .*$", "", code, flags=re.MULTILINE) for code in found]
    return [code.replace("http://127.0.0.1:8080/api/fal/proxy", gateway.url).replace("gwk_…", key) for code in codes]


@pytest.mark.parametrize(("package", "number"), [(CURRENT, 0), (CURRENT, 1), (OLDER, 1)])
def test_the_lines_of_the_readme_work_as_pasted(node: NodeClient, gateway: Gateway, package: str, number: int) -> None:
    """The first snippet from 1.10 on, the second with every version: the picture comes, by way of the gateway."""
    before = len(gateway.events("exchange"))
    code = snippets(gateway, node.credentials)[number]
    outcome = replace(node, package=package).call("pasted", code=code)
    assert outcome.error is None, outcome
    assert outcome.value["images"][0]["url"]
    until(lambda: len(gateway.events("exchange")) > before, "requests in the gateway's log")


def test_the_first_lines_are_not_for_older_clients(older: NodeClient, gateway: Gateway) -> None:
    """What README.md warns of is so: with them an older client calls fal itself, which is stopped here."""
    outcome = older.call("pasted", code=snippets(gateway, older.credentials)[0])
    assert outcome.error is not None
    assert outcome.error["message"] == "a request left for queue.fal.run"


@pytest.mark.parametrize("name", CALLS)
def test_every_call_goes_through_the_gateway(older: NodeClient, gateway: Gateway, name: str) -> None:
    """With the middleware each request to one of fal's hosts goes to the gateway, and only those carry the key."""
    outcome = older.call(name, **CALLS[name])
    assert outcome.error is None, outcome
    own = urlsplit(gateway.url).netloc
    to_fal = [
        attempt for attempt in outcome.attempts if re.search(r"fal\.(run|ai)$", urlsplit(attempt["target"]).netloc)
    ]
    assert to_fal
    assert {attempt["host"] for attempt in to_fal} == {own}
    assert {attempt["key"] for attempt in outcome.attempts if attempt["host"] == own} == {f"Key {older.credentials}"}
    assert {attempt["key"] for attempt in outcome.attempts if attempt["host"] != own} <= {None}
