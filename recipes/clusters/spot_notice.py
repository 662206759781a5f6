"""Tells Ray that its machine will be taken away: ``python -m recipes.clusters.spot_notice aws|gcp|azure``, on each spot worker.

Asks the cloud's metadata service every few seconds. When it announces the end of this machine, Ray is asked to drain the node,
which is the notice that training answers with a checkpoint (docs/reliability.md); then the program ends. It starts before Ray
or after it, and changes nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path

_EVERY_S, _ANSWER_S = 5.0, 2.0
# Ray may not be up yet, or its head may be busy.
_NUM_TRIES = 5
# Google's documentation: 30 s from the notice to the end. It names no time.
_GCP_LEAD_S = 30.0
_LINK_LOCAL = "http://169.254.169.254"
# Metadata services are on the machine's own link, wherever a proxy is set.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def aws_end(url: str) -> float | None:
    """EC2's spot/instance-action with a session token (IMDSv2): 404 until there is one, two minutes before the end."""
    seconds = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _answer(f"{url}/latest/api/token", seconds, method="PUT") or ""
    said = _answer(f"{url}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    if said is None:
        return None
    return datetime.fromisoformat(json.loads(said)["time"].replace("Z", "+00:00")).timestamp()


def gcp_end(url: str) -> float | None:
    """Compute Engine's instance/preempted: FALSE, then TRUE."""
    said = _answer(f"{url}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return time.time() + _GCP_LEAD_S if said == "TRUE" else None


def azure_end(url: str) -> float | None:
    """Azure's scheduled events: one of type Preempt that names this machine; the list is the same for all of a set."""
    own = _answer(f"{url}/metadata/instance/compute/name?api-version=2021-02-01&format=text", {"Metadata": "true"})
    said = _answer(f"{url}/metadata/scheduledevents?api-version=2020-07-01", {"Metadata": "true"})
    for event in json.loads(said or "{}").get("Events", []):
        if event["EventType"] == "Preempt" and own in event["Resources"]:
            # An event that has begun names no time.
            return parsedate_to_datetime(event["NotBefore"]).timestamp() if event["NotBefore"] else time.time()
    return None


CLOUDS = {
    "aws": (aws_end, _LINK_LOCAL),
    "gcp": (gcp_end, "http://metadata.google.internal"),
    "azure": (azure_end, _LINK_LOCAL),
}


def _answer(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """The text at a URL; None where there is nothing."""
    try:
        with _OPENER.open(urllib.request.Request(url, headers=headers, method=method), timeout=_ANSWER_S) as response:
            return response.read().decode().strip()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def wait_for_end(cloud: str, url: str, every_s: float) -> float:
    """When this machine goes, in seconds of `time.time()`, once the cloud says so.

    An answer that fails or cannot be read is written down, once for each kind, and asked for again.
    """
    end_of, seen = CLOUDS[cloud][0], set()
    while True:
        try:
            end = end_of(url)
        except (OSError, ValueError, KeyError, TypeError) as error:
            words = f"{type(error).__name__}: {error}"
            if words not in seen:
                _say(f"{url} cannot be asked ({words}); going on")
                seen.add(words)
            end = None
        if end is not None:
            return end
        time.sleep(every_s)


def drain(end: float, cloud: str, address: str | None) -> bool:
    """Ask Ray to drain this node by then, several times where it does not answer; whether it took it."""
    command = [str(Path(sys.executable).parent / "ray"), "drain-node", "--reason=DRAIN_NODE_REASON_PREEMPTION"]
    command += [f"--reason-message={cloud} takes this machine away"] + ([f"--address={address}"] if address else [])
    for _ in range(_NUM_TRIES):
        left_s = max(1, int(end - time.time()))
        done = subprocess.run(
            [*command, f"--deadline-remaining-seconds={left_s}"], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            _say(f"{cloud} takes this machine away in {left_s} s: Ray drains the node")
            return True
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        _say(f"Ray did not take the notice ({lines[-1]})")
        time.sleep(1)
    return False


def _say(text: str) -> None:
    print(f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ} {text}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 Ray was told, 1 it did not take the notice."""
    parser = argparse.ArgumentParser(prog="python -m recipes.clusters.spot_notice", description=__doc__.splitlines()[0])
    parser.add_argument("cloud", choices=sorted(CLOUDS))
    parser.add_argument("--every-s", type=float, default=_EVERY_S, help="between two questions; default 5")
    parser.add_argument("--url", help="of the metadata service; default: the cloud's own")
    parser.add_argument(
        "--address", default=os.environ.get("RAY_ADDRESS"), help="of the head; default: this node's Ray"
    )
    options = parser.parse_args(arguments)
    url = options.url or CLOUDS[options.cloud][1]
    _say(f"watching {url} for the end of this machine")
    return 0 if drain(wait_for_end(options.cloud, url, options.every_s), options.cloud, options.address) else 1


if __name__ == "__main__":
    sys.exit(main())
