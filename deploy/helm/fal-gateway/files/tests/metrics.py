"""The ops Service shows metrics that Prometheus can read, those of money among them."""

import os
import re
import time
import urllib.request

PATIENCE_SECONDS = 60
NEEDED = ("build_info", "requests_total", "cost_usd_total", "inflight_requests", "policy_generation")
SAMPLE = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(\{.*\})? [0-9eE.+-]+|[a-zA-Z_:][a-zA-Z0-9_:]*(\{.*\})? (NaN|[+-]Inf)")


def page(url):
    """Return the exposition, once it can be had."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return response.read().decode()
        except OSError as fault:
            if time.monotonic() > deadline:
                raise SystemExit(f"{url}: {fault}") from fault
            time.sleep(1)


def main():
    """Read every line, and look for the families that dashboards and rules stand on."""
    lines = page(f"{os.environ['OPS_URL']}/metrics").splitlines()
    samples = [line for line in lines if line and not line.startswith("#")]
    torn = [line for line in samples if not SAMPLE.fullmatch(line)]
    families = {line.split()[2] for line in lines if line.startswith("# TYPE ")}
    missing = [name for name in NEEDED if f"fal_gateway_{name}" not in families]
    if torn or missing:
        raise SystemExit(f"not samples: {torn[:3]}; missing families: {missing}")
    print(f"{len(families)} families, {len(samples)} samples")


main()
