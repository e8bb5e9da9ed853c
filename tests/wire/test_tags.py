"""`attribution.fal_tags`: the origin is told who called, and no caller can say that it is another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import proxy_request
from tests.harness.policy import GatewayKey, policy_text

if TYPE_CHECKING:
    from tests.harness.gateway import StartGateway
    from tests.harness.origin import StartOrigin

KEY: Final = GatewayKey(id="web-prod", team="design")
OURS: Final = b"gw.team=design,gw.key=web-prod"
ANONYMOUS: Final = b"gw.team=anonymous,gw.key=anonymous"
TAGGED: Final = policy_text(KEY, attribution={"fal_tags": True}, clients={"allow_unauthorized_requests": True})
UNTAGGED: Final = policy_text(KEY, attribution={"fal_tags": False})


@dataclass(frozen=True, slots=True)
class Case:
    """A request under a policy, and the values of `x-fal-tags` that the origin sees."""

    policy: str
    key: GatewayKey | None
    fields: tuple[tuple[str, str], ...]
    seen: list[bytes]


@pytest.mark.parametrize(
    "case",
    [
        Case(TAGGED, KEY, (), [OURS]),
        Case(TAGGED, KEY, (("X-Fal-Tags", "job=7"), ("x-fal-tags", "gw.team=other,b=c")), [b"job=7,b=c," + OURS]),
        Case(TAGGED, KEY, (("x-fal-tags", "job=7"), ("Connection", "x-fal-tags")), [OURS]),
        Case(TAGGED, KEY, (("x-fal-tags", ""),), [OURS]),
        Case(TAGGED, None, (("x-fal-tags", "gw.team=design"),), [ANONYMOUS]),
        Case(UNTAGGED, KEY, (), []),
        Case(UNTAGGED, KEY, (("x-fal-tags", "a=b, gw.team=x"),), [b"a=b, gw.team=x"]),
    ],
)
def test_the_origin_sees_who_called(start_gateway: StartGateway, start_origin: StartOrigin, case: Case) -> None:
    """One field, the caller's own tags in it, ours the gateway's word; without the switch nothing is touched."""
    origin = start_origin()
    with start_gateway(origin, policy=case.policy).connect() as client:
        assert client.ask(proxy_request(key=case.key, fields=case.fields)).status == 200
    assert origin.requests[-1].head.values(b"x-fal-tags") == case.seen
