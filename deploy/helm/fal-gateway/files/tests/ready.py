"""The gateway is ready behind its Services, and does what it is for: it turns away who has no key."""

import json
import os
import time
import urllib.error
import urllib.request

PATIENCE_SECONDS = 60


def answer(request):
    """Return the status, the content type and the content of an answer, also of an error."""
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.headers.get_content_type(), response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get_content_type(), error.read()


def answer_in_time(request):
    """Return the first answer that comes: a Service may need a moment until it knows its pods."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return answer(request)
        except OSError as fault:
            if time.monotonic() > deadline:
                raise SystemExit(f"{request.full_url}: {fault}") from fault
            time.sleep(1)


def expect(claim, told):
    """End with what was told where a claim does not hold."""
    if not claim:
        raise SystemExit(f"unexpected: {told}")


def main():
    """Ask the ops Service whether it is ready, and the data Service for a call without a key."""
    ready = answer_in_time(urllib.request.Request(f"{os.environ['OPS_URL']}/readyz"))
    expect(ready[0] == 200 and json.loads(ready[2])["status"] == "ready", ready)
    target = {"x-fal-target-url": "https://fal.run/fal-ai/flux/dev", "authorization": "Key of-nobody"}
    call = urllib.request.Request(f"{os.environ['DATA_URL']}/api/fal/proxy", data=b"{}", headers=target)
    refused = answer_in_time(call)
    expect(refused[0] == 401 and json.loads(refused[2])["error_type"] == "credential_invalid", refused)
    hidden = answer_in_time(urllib.request.Request(f"{os.environ['DATA_URL']}/metrics"))
    expect(hidden[0] == 404, f"the data listener shows /metrics: {hidden}")
    print(f"ready: {ready[2].decode()}")


main()
