"""Which endpoints, job calls and tokens a key's endpoint globs admit."""

from __future__ import annotations

import pytest

from gateway.fal.calls import Call, classify
from gateway.policy.endpoint import admit_apps, admit_endpoint
from gateway.policy.glob import compile_globs


def call_to(text: str) -> Call:
    """Return the call of `METHOD host/path`."""
    method, _, url = text.partition(" ")
    host, _, path = url.partition("/")
    return classify(host, "/" + path, method=method)


@pytest.mark.parametrize(
    ("pattern", "request_line", "admitted"),
    [
        ("fal-ai/flux/**", "POST fal.run/fal-ai/flux/dev", True),
        ("fal-ai/flux/**", "GET fal.run/fal-ai/flux/dev", True),
        ("fal-ai/flux/**", "POST fal.run/fal-ai/flux", True),
        ("fal-ai/flux/**", "POST fal.run/fal-ai/flux/dev/stream", True),
        ("fal-ai/flux/dev", "POST fal.run/fal-ai/flux/dev/stream", True),
        ("fal-ai/flux/dev", "POST queue.fal.run/fal-ai/flux/dev", True),
        ("fal-ai/flux/**", "POST fal.run/fal-ai/fluxus/dev", False),
        ("fal-ai/flux/**", "GET fal.run/fal-ai/other", False),
        ("fal-ai/flux/**", "PUT queue.fal.run/fal-ai/other", False),
        ("fal-ai/flux/dev", "POST fal.run/fal-ai/flux", False),
        ("fal-ai/flux/dev", "POST fal.run/fal-ai/flux/dev/", True),
        ("fal-ai/flux/dev", "POST fal.run/Fal-ai/flux/dev", False),
        ("fal-ai/flux/dev", "GET queue.fal.run/fal-ai/flux/requests/1/status", True),
        ("fal-ai/flux/**", "GET queue.fal.run/fal-ai/flux/requests/1", True),
        ("fal-ai/*", "PUT queue.fal.run/fal-ai/flux/requests/1/cancel", True),
        ("**/dev", "GET queue.fal.run/fal-ai/flux/requests/1", True),
        ("workflows/me/*", "GET queue.fal.run/workflows/me/flow/requests/1", True),
        ("workflows/me/flow/x", "GET queue.fal.run/workflows/me/flow/requests/1", True),
        ("workflows/me/other/**", "GET queue.fal.run/workflows/me/flow/requests/1", False),
        ("other/**", "GET queue.fal.run/fal-ai/flux/requests/1", False),
        ("fal-ai/fluxus/**", "GET queue.fal.run/fal-ai/flux/requests/1", False),
        ("fal-ai/flux/dev", "POST queue.fal.run/fal-ai/flux/schnell/requests/1", False),
        ("fal-ai/flux/**", "POST rest.fal.ai/storage/upload/initiate", True),
        ("fal-ai/flux/**", "POST rest.fal.ai/tokens/", True),
        ("fal-ai/flux/**", "GET api.fal.ai/v1/models/pricing", False),
        ("v1/models/**", "GET api.fal.ai/v1/models/pricing", True),
    ],
)
def test_a_call_is_admitted_by_its_endpoint(pattern: str, request_line: str, admitted: bool) -> None:  # noqa: FBT001 (a parameter of the table)
    """Every method is checked; a job call needs only its application to be reached; uploads and tokens have none."""
    assert (admit_endpoint(call_to(request_line), compile_globs([pattern])) is None) == admitted


@pytest.mark.parametrize(
    ("pattern", "app", "admitted"),
    [
        ("fal-ai/flux/**", "flux", True),
        ("fal-ai/flux", "flux", True),
        ("fal-ai/*", "flux", True),
        ("fal-ai/**", "flux", True),
        ("**", "flux", True),
        ("*/flux", "flux", True),
        ("**/flux", "flux", True),
        ("workflows/me/flow/**", "flow", True),
        ("workflows/**", "flow", True),
        ("fal-ai/flux/dev", "flux", False),
        ("fal-ai/flux/**", "fluxus", False),
        ("fal-ai/flux/**", "dev", False),
        ("workflows/me/flow/**", "me", False),
        ("fal-ai/flux/**", "fal-ai/flux", True),
        ("fal-ai/flux/**", "fal-ai/flux/dev", True),
        ("fal-ai/flux/dev", "fal-ai/flux/dev", True),
        ("fal-ai/flux/dev", "fal-ai/flux", False),
        ("fal-ai/flux/**", "other/flux", False),
        ("fal-ai/*", "*", False),
        ("**", "**", False),
        ("**", "", False),
        ("**", "a/", False),
        ("fal-ai/flux/**", "fal-ai/flux/../other", False),
        ("fal-ai/flux/**", "fal-ai/flux/..", False),
        ("fal-ai/**", "flux\n", False),
        ("fal-ai/**", "flux,other", False),
        ("fal-ai/**", "\ud800", False),
    ],
)
def test_a_token_is_granted_for_whole_applications_only(pattern: str, app: str, admitted: bool) -> None:  # noqa: FBT001 (a parameter of the table)
    """An app passes if the globs admit the application itself; what fal might read as more than a name never does."""
    assert (admit_apps([app], compile_globs([pattern])) is None) == admitted


def test_each_app_of_a_token_must_be_admitted() -> None:
    """One app too many refuses the token, and the refusal names it."""
    problem = admit_apps(["flux", "other"], compile_globs(["fal-ai/flux/**"]))
    assert problem is not None
    assert (problem.status, problem.error_type) == (403, "endpoint_not_allowed")
    assert "'other'" in problem.detail


def test_without_globs_everything_is_admitted() -> None:
    """A key without allowed_endpoints may call all, and have a token for all."""
    assert admit_endpoint(call_to("POST fal.run/any/thing"), None) is None
    assert admit_apps(["*", "flux"], None) is None


def test_a_refusal_is_short_and_printable() -> None:
    """What a caller made up is cut and escaped before it is shown."""
    problem = admit_apps(["ü\n" * 5000], compile_globs(["a/b"]))
    assert problem is not None
    assert len(problem.detail) < 700
    assert problem.detail.isprintable()
    assert problem.detail.isascii()
