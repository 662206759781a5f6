"""The watcher of spot notices against a real HTTP server, and, slowly, a real node of Ray."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from recipes.clusters.spot_notice import aws_end, azure_end, gcp_end, main, wait_for_end
from tests.cluster.alone import alone
from tests.cluster.metadata_service import AWS_TOKEN, Service

ACTION = "/latest/meta-data/spot/instance-action"
PREEMPTED = "/computeMetadata/v1/instance/preempted"
NAME, EVENTS = "/metadata/instance/compute/name", "/metadata/scheduledevents"
AT, AT_S = "2026-11-25T14:00:00Z", 1795615200.0


def test_aws_asks_with_a_token_and_reads_the_time():
    with Service({}, {"X-aws-ec2-metadata-token": AWS_TOKEN}) as service:
        assert aws_end(service.url) is None
        service.answers[ACTION] = json.dumps({"action": "terminate", "time": AT})
        assert aws_end(service.url) == AT_S


def test_google_gives_half_a_minute():
    with Service({PREEMPTED: "FALSE"}, {"Metadata-Flavor": "Google"}) as service:
        assert gcp_end(service.url) is None
        service.answers[PREEMPTED] = "TRUE"
        assert gcp_end(service.url) == pytest.approx(time.time() + 30, abs=2)


def test_azure_tells_this_machines_event_from_others():
    event = {"EventType": "Preempt", "Resources": ["vm_1"], "NotBefore": "Wed, 25 Nov 2026 14:00:00 GMT"}

    def events(**changes):
        return json.dumps({"Events": [event | changes]})

    with Service({NAME: "vm_1", EVENTS: json.dumps({"Events": []})}, {"Metadata": "true"}) as service:
        found = []
        for text in (events(Resources=["vm_2"]), events(EventType="Reboot"), events()):
            service.answers[EVENTS] = text
            found.append(azure_end(service.url))
        assert found == [None, None, AT_S]
        service.answers[EVENTS] = events(NotBefore="")
        assert azure_end(service.url) == pytest.approx(time.time(), abs=2)


def test_a_service_that_fails_is_asked_again_and_said_once(capsys):
    with Service({ACTION: 500}) as service:
        found = []
        watcher = threading.Thread(target=lambda: found.append(wait_for_end("aws", service.url, 0.01)))
        watcher.start()
        end = time.monotonic() + 10
        while len(service.asked) < 5 and time.monotonic() < end:
            time.sleep(0.01)
        service.answers[ACTION] = "no JSON"
        time.sleep(0.1)
        service.answers[ACTION] = json.dumps({"action": "stop", "time": AT})
        watcher.join(10)
    assert found == [AT_S]
    said = capsys.readouterr().out.splitlines()
    assert [line.split("cannot be asked (")[1].split(":")[0] for line in said] == ["HTTPError", "JSONDecodeError"]


def test_another_cloud_is_refused(capsys):
    with pytest.raises(SystemExit) as refused:
        main(["oracle"])
    assert refused.value.code == 2
    assert "invalid choice: 'oracle'" in capsys.readouterr().err


PROGRAM = """
import json, os, subprocess, sys, time
sys.path.insert(0, os.getcwd())
from tests.cluster.metadata_service import Service
head = "10.98.0.1:6391"
subprocess.run(["ray", "start", "--head", "--node-ip-address=10.98.0.1", "--port=6391", "--num-cpus=1", "--num-gpus=0",
                "--dashboard-host=127.0.0.1"], check=True)
with Service({"/computeMetadata/v1/instance/preempted": "FALSE"}) as service:
    watcher = subprocess.Popen([sys.executable, "-m", "recipes.clusters.spot_notice", "gcp", "--url", service.url,
                                "--every-s", "0.2", "--address", head], stdout=subprocess.PIPE, text=True)
    import ray
    from ray._private.state import state
    ray.init(address=head, log_to_driver=False)

    @ray.remote(num_cpus=1)
    class Busy:
        def ready(self):
            return True

    busy = Busy.remote()  # an idle node is gone as soon as it drains
    assert ray.get(busy.ready.remote(), timeout=60)
    time.sleep(2)
    before, running = state.get_draining_nodes(), watcher.poll() is None
    service.answers["/computeMetadata/v1/instance/preempted"] = "TRUE"
    noticed, draining = time.monotonic(), {}
    while not draining and time.monotonic() < noticed + 60:
        draining = state.get_draining_nodes()
        time.sleep(0.1)
    after_s = time.monotonic() - noticed
    said = watcher.communicate(timeout=60)[0]
own = ray.get_runtime_context().get_node_id()
left_s = [ends / 1e3 - time.time() for ends in draining.values()]
print("RESULT", json.dumps([running, before, list(draining) == [own], left_s, after_s, watcher.returncode, said]))
"""


@pytest.mark.slow
def test_ray_drains_the_node():
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 32, "RAY_USAGE_STATS_ENABLED": "0"}
    run = subprocess.run(
        [*alone("10.98.0.1"), sys.executable, "-c", PROGRAM],
        env={"PATH": path, "HOME": "/nonexistent", **ray},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-3000:]
    running, before, own, left_s, after_s, code, said = json.loads(run.stdout.split("RESULT ")[1].splitlines()[0])
    assert (running, before, own, code) == (True, {}, True, 0)
    assert 0 < left_s[0] <= 30
    assert after_s < 20
    assert "gcp takes this machine away in" in said
