"""CORS (Fetch standard, section 3.3): exact origins, readable errors, preflight without a key; silence when off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import PROXY_PATH, http_response, message, proxy_request
from tests.wire.stage import PAGE, Stage

if TYPE_CHECKING:
    from tests.harness.client import Response
    from tests.harness.gateway import Gateway
    from tests.harness.policy import GatewayKey

ALLOW_ORIGIN: Final = "access-control-allow-origin"
OTHERS: Final = [
    "https://other.example",
    "http://app.example",
    "https://app.example:8443",
    "https://app.example:443",
    "https://app.example/",
    "https://app.example.evil.example",
    "https://evil.example/https://app.example",
    "https://xapp.example",
    "https://sub.app.example",
    "HTTPS://APP.EXAMPLE",
    "https://app.example, https://app.example",
    "null",
    "*",
    "",
]
ASKED: Final = "authorization, content-type, x-fal-target-url, x-gateway-key"


def preflight(page: str | None = PAGE, *, path: str = PROXY_PATH, asked: str | None = ASKED) -> bytes:
    """Return what a browser sends ahead of a request that carries a key."""
    fields = [("Host", "gateway.test"), ("Access-Control-Request-Method", "POST")]
    fields += [("Origin", page)] if page is not None else []
    fields += [("Access-Control-Request-Headers", asked)] if asked is not None else []
    return message(f"OPTIONS {path} HTTP/1.1", fields)


def listed(response: Response, name: str) -> set[str]:
    """Return the names in a list field, in lower case."""
    return {part.strip().lower() for part in (response.field(name) or "").split(",") if part.strip()}


def cors_fields(response: Response) -> list[bytes]:
    """Return the names of all fields of the CORS protocol in an answer."""
    return [name for name, _ in response.head.fields if name.startswith(b"access-control-")]


@pytest.mark.parametrize("path", [PROXY_PATH, f"{PROXY_PATH}/fal-ai/flux"])
def test_a_preflight_needs_no_key(stage: Stage, path: str) -> None:
    """A browser sends no key ahead; it learns methods and fields, and the origin hears nothing."""
    with stage.untouched():
        response = stage.ask(preflight(path=path), method="OPTIONS")
    assert (response.status, response.body, response.framing) == (204, b"", "none")
    assert response.field(ALLOW_ORIGIN) == PAGE
    assert listed(response, "access-control-allow-methods") == {"get", "post", "put", "delete"}
    assert listed(response, "access-control-allow-headers") == listed_names(ASKED)
    assert {"origin", "access-control-request-headers"} <= listed(response, "vary")
    assert response.field("x-gateway-request-id")
    assert response.field("access-control-allow-credentials") is None


def listed_names(text: str) -> set[str]:
    """Return the names in a comma-separated text."""
    return set(text.split(", "))


@pytest.mark.parametrize("page", [None, *OTHERS])
def test_a_preflight_of_another_page_allows_nothing(stage: Stage, page: str | None) -> None:
    """Origins are compared as a whole; a page that is not listed gets not one CORS field."""
    response = stage.ask(preflight(page), method="OPTIONS")
    assert (response.status, cors_fields(response)) == (204, [])
    assert "origin" in listed(response, "vary")


@pytest.mark.parametrize("asked", [None, "", "x y", "a,,b", 'a"b', "x-a: 1", "*" + "a" * 3000, "\xe9"])
def test_odd_lists_of_fields_are_not_reflected(stage: Stage, asked: str | None) -> None:
    """What is no list of field names is not said back; the preflight itself is answered."""
    response = stage.ask(preflight(asked=asked), method="OPTIONS")
    assert (response.status, response.field(ALLOW_ORIGIN)) == (204, PAGE)
    assert response.field("access-control-allow-headers") is None


def test_a_preflight_is_counted_once(stage: Stage) -> None:
    """OPTIONS to the proxy is one request with its status, and no refusal."""
    before = stage.gateway.metrics()
    stage.ask(preflight(), method="OPTIONS")
    after = stage.gateway.metrics()
    assert after.value("requests_total", status="204") - before.value("requests_total", status="204") == 1
    assert after.value("requests_total") - before.value("requests_total") == 1
    assert after.value("refusals_total") == before.value("refusals_total")


def test_a_page_reads_the_answer_and_the_fields_it_needs(stage: Stage) -> None:
    """The page's origin is reflected, never `*`; fal's and the gateway's fields, and Retry-After, are exposed."""
    fields = [
        ("Content-Type", "application/json"),
        ("x-fal-request-id", "1"),
        ("X-Fal-Billable-Units", "1"),
        ("Retry-After", "1"),
        ("ETag", "1"),
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Expose-Headers", "set-cookie"),
    ]
    stage.answer(http_response(fields=fields))
    response = stage.ask(proxy_request(key=stage.keys.full, fields=[("Origin", PAGE)]))
    assert response.field(ALLOW_ORIGIN) == PAGE
    assert listed(response, "access-control-expose-headers") == {
        "x-fal-request-id",
        "x-fal-billable-units",
        "retry-after",
        "x-gateway-request-id",
    }
    assert listed(response, "vary") == {"origin"}
    assert sorted(cors_fields(response)) == [ALLOW_ORIGIN.encode(), b"access-control-expose-headers"]


@pytest.mark.parametrize("page", [None, *OTHERS])
def test_another_page_reads_nothing(stage: Stage, page: str | None) -> None:
    """Answers and errors for other pages carry no CORS field, but say that they vary by origin."""
    stage.answer(http_response(fields=[("Access-Control-Allow-Origin", "*")]))
    fields = [("Origin", page)] if page is not None else []
    for key in (stage.keys.full, None):
        response = stage.ask(proxy_request(key=key, fields=fields))
        assert response.status == (401 if key is None else 200)
        assert cors_fields(response) == []
        assert response.field("vary") == "Origin"


def test_the_origins_own_vary_stays(stage: Stage) -> None:
    """The gateway's Vary stands beside the origin's."""
    stage.answer(http_response(fields=[("Vary", "Accept-Encoding")]))
    response = stage.ask(proxy_request(key=stage.keys.full, fields=[("Origin", PAGE)]))
    assert response.head.values(b"vary") == [b"Accept-Encoding", b"Origin"]


def test_nothing_of_cors_where_it_is_not_configured(gateway: Gateway, key: GatewayKey) -> None:
    """Without `cors_allowed_origins` no answer carries a CORS field: not the preflight, not a refusal, not a result."""
    with gateway.connect() as client:
        client.send(preflight())
        answers = [client.read_response("OPTIONS")]
        answers += [client.ask(proxy_request(key=which, fields=[("Origin", PAGE)])) for which in (key, None)]
        client.send(preflight(path="/elsewhere"))
        answers += [client.read_response("OPTIONS")]
    assert [answer.status for answer in answers] == [204, 200, 401, 404]
    assert [cors_fields(answer) for answer in answers] == [[]] * 4
    assert [answer.field("vary") for answer in answers[1:]] == [None] * 3


def test_options_without_a_page_names_the_methods(stage: Stage) -> None:
    """Plain OPTIONS says what there is (RFC 9110, section 9.3.7)."""
    response = stage.ask(preflight(None, asked=None), method="OPTIONS")
    assert response.field("allow") == "GET, POST, PUT, DELETE, OPTIONS"
