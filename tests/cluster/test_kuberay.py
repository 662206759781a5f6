"""The KubeRay manifests against the operator's own schema, what the operator checks beyond it, and our rules."""

import copy
import functools
import os
import re
import subprocess

import pytest
import yaml
from jsonschema import Draft202012Validator
from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

from tests.cluster.files import CLUSTER, changes, command_in_comments, config_of, image_tag, locked
from tests.data.corpus import shared_data

FILES = ["raycluster", "rayjob"]


def text_of(name: str) -> str:
    return (CLUSTER / "kuberay" / f"{name}.yaml").read_text(encoding="utf-8")


def strict(schema: dict) -> dict:
    """The schema with unknown keys refused, as `kubectl apply` does; integer-or-text fields stay as they are."""
    schema = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-validations")}
    if "properties" in schema:
        schema["properties"] = {name: strict(child) for name, child in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = strict(schema["additionalProperties"])
    if isinstance(schema.get("items"), dict):
        schema["items"] = strict(schema["items"])
    return schema


@functools.cache
def validator(kind: str, version: str) -> Draft202012Validator:
    path = shared_data("kuberay_crd", f"ray.io_{kind.lower()}s.yaml")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the files have 20,000 lines
    versions = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)["spec"]["versions"]
    schema = next(v["schema"]["openAPIV3Schema"] for v in versions if f"ray.io/{v['name']}" == version)
    return Draft202012Validator(strict(schema))


def schema_errors(document: dict) -> list[str]:
    return [error.message for error in validator(document["kind"], document["apiVersion"]).iter_errors(document)]


@pytest.fixture(params=FILES)
def name(request) -> str:
    return request.param


@pytest.fixture
def documents(name) -> dict[str, dict]:
    return {document["kind"]: document for document in yaml.safe_load_all(text_of(name))}


@pytest.fixture
def ray_document(documents) -> dict:
    return next(document for document in documents.values() if document["apiVersion"] == "ray.io/v1")


@pytest.fixture
def cluster(ray_document) -> dict:
    spec = ray_document["spec"]
    return spec.get("rayClusterSpec", spec)


@pytest.fixture
def pods(ray_document, cluster) -> dict[str, dict]:
    """Every pod template of the file, by what runs in it."""
    found = {"head": cluster["headGroupSpec"]["template"]}
    found |= {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    if "submitterPodTemplate" in ray_document["spec"]:
        found["submitter"] = ray_document["spec"]["submitterPodTemplate"]
    return found


def test_the_operators_schema(ray_document):
    assert schema_errors(ray_document) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda c: c.update(rayVersions="2.60.0"), "rayVersions"),
        (lambda c: c["authOptions"].update(mode="tokens"), "tokens"),
        (lambda c: c["workerGroupSpecs"][0].pop("maxReplicas"), "maxReplicas"),
        (lambda c: c["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}), "0 is not of type 'string'"),
        (lambda c: c["headGroupSpec"]["template"]["spec"]["containers"][0].update(volumMounts=[]), "volumMounts"),
        (lambda c: c["workerGroupSpecs"][0]["template"]["spec"].update(toleration=[]), "toleration"),
    ],
)
def test_what_the_schema_catches(ray_document, wrong, message):
    broken = copy.deepcopy(ray_document)
    wrong(broken["spec"].get("rayClusterSpec", broken["spec"]))
    assert any(message in error for error in schema_errors(broken))


def test_names_and_versions_the_operator_takes(ray_document, cluster):
    # The operator's own limits: 53 characters for a cluster, 47 for a job, a DNS label.
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", ray_document["metadata"]["name"])
    assert cluster["rayVersion"] == locked("ray")
    assert not any("labels" in group.get("rayStartParams", {}) for group in cluster["workerGroupSpecs"])


def test_tokens_come_from_the_secret(documents, cluster, pods):
    assert "Secret" not in documents
    assert cluster["authOptions"] == {"mode": "token", "secretName": "t5-ray-token"}
    for pod in pods.values():
        for container in pod["spec"]["containers"]:
            env = {entry["name"]: entry for entry in container["env"]}
            assert env["RAY_AUTH_MODE"]["value"] == "token"
            source = env["RAY_AUTH_TOKEN"]
            assert source == {
                "name": "RAY_AUTH_TOKEN",
                "valueFrom": {"secretKeyRef": {"name": "t5-ray-token", "key": "auth_token"}},
            }


def test_pods_run_without_rights(pods):
    for pod in pods.values():
        spec = pod["spec"]
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == 1000
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all("hostPath" not in volume for volume in spec.get("volumes", []))
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert all("hostPort" not in port for port in container.get("ports", []))


def test_nothing_is_reachable_from_outside(name, documents, cluster, pods):
    assert set(documents) == {{"raycluster": "RayCluster", "rayjob": "RayJob"}[name], "NetworkPolicy"}
    assert "LoadBalancer" not in text_of(name)
    assert "NodePort" not in text_of(name)
    assert not {"enableIngress", "headService"} & set(cluster["headGroupSpec"])
    policy = documents["NetworkPolicy"]["spec"]
    labels = policy["podSelector"]["matchLabels"]
    assert all(pod["metadata"]["labels"] == labels for pod in pods.values())
    assert policy["policyTypes"] == ["Ingress"]
    own, *others = policy["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": labels}}]}
    dashboard = cluster["headGroupSpec"]["rayStartParams"]["dashboard-host"]
    if name == "raycluster":
        assert dashboard == "127.0.0.1"
        assert others == []
    else:  # KubeRay's operator asks the dashboard for the job's state: from its namespace, and to that port alone
        assert dashboard == "0.0.0.0"
        assert [rule["ports"] for rule in others] == [[{"protocol": "TCP", "port": 8265}]]
        assert all("namespaceSelector" in peer for rule in others for peer in rule["from"])


def test_head_takes_no_training_work(cluster, pods):
    params = cluster["headGroupSpec"]["rayStartParams"]
    assert (params["num-cpus"], params["num-gpus"]) == ("0", "0")
    assert "nvidia.com/gpu" not in pods["head"]["spec"]["containers"][0]["resources"]["limits"]


def gib(quantity: str) -> int:
    return int(quantity.removesuffix("Gi"))


def test_workers_have_gpus_shared_memory_and_tolerations(cluster, pods):
    (group,) = cluster["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    resources = pods["gpu"]["spec"]["containers"][0]["resources"]
    assert resources["requests"] == resources["limits"]
    assert resources["limits"]["nvidia.com/gpu"] == "1"
    keys = {toleration["key"] for toleration in pods["gpu"]["spec"]["tolerations"]}
    assert "nvidia.com/gpu" in keys
    for kind in ("head", "gpu"):
        spec = pods[kind]["spec"]
        (shm,) = (volume["emptyDir"] for volume in spec["volumes"] if volume["name"] == "shm")
        assert shm["medium"] == "Memory"
        assert gib(shm["sizeLimit"]) * 2 <= gib(spec["containers"][0]["resources"]["limits"]["memory"])
        mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
        assert mounts["shm"] == "/dev/shm"
        assert set(mounts) <= {volume["name"] for volume in spec["volumes"]}


def test_drain_ends_before_the_kill(pods):
    for kind in ("head", "gpu"):
        spec = pods[kind]["spec"]
        env = {entry["name"]: entry.get("value") for entry in spec["containers"][0]["env"]}
        drain_s = float(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert drain_s > 0
        # Ray then stops its processes, some seconds each.
        assert drain_s + 20 <= spec["terminationGracePeriodSeconds"]


def test_probes_ask_a_path_that_needs_no_token(pods):
    for kind in ("head", "gpu"):
        container = pods[kind]["spec"]["containers"][0]
        for probe in ("livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["path"] in PUBLIC_EXACT_PATHS
            assert container[probe]["httpGet"]["port"] == 52365


def test_ray_starts_as_the_last_command_of_bash():
    """SIGTERM reaches `ray start --block`, and so drains the node, only if bash puts it in its own place."""
    # The form the operator gives to the container's command.
    shown = subprocess.run(
        ["/bin/bash", "-c", "--", "ulimit -n ${RAY_START_ULIMIT_OPEN_FILES:-512}; cat /proc/self/stat"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert int(shown[3]) == os.getpid()


def test_image_is_pinned(name, pods):
    images = {container["image"] for pod in pods.values() for container in pod["spec"]["containers"]}
    assert {image.split(":")[-1] for image in images} == {image_tag()}
    assert len(images) == 1
    assert "@sha256:" in text_of(name)


def test_no_double_submission():
    job = next(iter(yaml.safe_load_all(text_of("rayjob"))))["spec"]
    assert job["backoffLimit"] == 0
    assert job["submitterConfig"]["backoffLimit"] == 0
    assert job["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"
    assert job["shutdownAfterJobFinishes"] is True


@pytest.mark.parametrize("name", FILES, indirect=True)
def test_the_job_fits_the_cluster(name, ray_document, cluster):
    if name == "rayjob":
        command = ray_document["spec"]["entrypoint"]
        assert command.split()[3].startswith("/opt/t5-on-ray/configs/")
    else:
        command = command_in_comments(text_of(name), "ray job submit")
        assert "--address http://127.0.0.1:8265 --working-dir . -- " in command
    run = config_of(command)
    assert run.scaling.use_gpu
    assert run.scaling.num_workers == cluster["workerGroupSpecs"][0]["replicas"]
    assert run.scaling.max_failures > 0
    assert run.run.storage_path.startswith("s3://")
    assert run.run.resume == "auto"


def test_five_lines_to_change(name):
    assert sorted(changes(text_of(name))) == ["1", "2", "3", "4", "5"]
