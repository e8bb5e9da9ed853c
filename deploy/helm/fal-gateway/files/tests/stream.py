"""An event stream comes through the Service as it is made, event by event, and ends whole."""

import http.client
import os
import time
from urllib.parse import urlsplit

PATIENCE_SECONDS = 60
LEAST_SPREAD_SECONDS = 0.3


def asked():
    """Return the answer to a paid call for a stream, once the Service can be reached."""
    fields = {
        "authorization": f"Key {os.environ['GATEWAY_KEY']}",
        "x-fal-target-url": f"https://fal.run/{os.environ['ENDPOINT']}/stream",
        "content-type": "application/json",
        "accept": "text/event-stream",
    }
    if os.environ.get("EMULATE"):
        fields["x-fal-emulate"] = os.environ["EMULATE"]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        connection = http.client.HTTPConnection(urlsplit(os.environ["DATA_URL"]).netloc, timeout=PATIENCE_SECONDS)
        try:
            connection.connect()  # only this is tried again: a call that was sent may have been billed
        except OSError as fault:
            if time.monotonic() > deadline:
                raise SystemExit(f"{os.environ['DATA_URL']}: {fault}") from fault
            time.sleep(1)
            continue
        connection.request("POST", "/api/fal/proxy", os.environ["INPUT"], fields)
        return connection.getresponse()


def main():
    """Note when each event came; an answer that ends early raises within http.client."""
    response = asked()
    if response.status != 200 or response.headers.get_content_type() != "text/event-stream":
        raise SystemExit(f"no event stream: {response.status} {response.read()[:500]!r}")
    if response.headers["x-accel-buffering"] != "no":
        raise SystemExit("no x-accel-buffering: proxies would hold the stream back")
    arrivals = [time.monotonic() for line in response if line.startswith(b"data:")]
    spread_seconds = arrivals[-1] - arrivals[0] if arrivals else 0
    if not arrivals or (os.environ.get("EMULATE") and spread_seconds < LEAST_SPREAD_SECONDS):
        raise SystemExit(f"{len(arrivals)} events within {spread_seconds:.3f} s: something held them back")
    print(f"{len(arrivals)} events within {spread_seconds:.3f} s")


main()
