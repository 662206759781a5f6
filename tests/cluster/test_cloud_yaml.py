"""aws.yaml, gcp.yaml and azure.yaml against Ray's own schema and preparation, the clouds' own keys, and our rules.

Ray checks neither what stands in ``provider`` nor in ``node_config``: a wrong key there shows in the cloud, or never.
"""

import copy
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

from recipes.clusters import spot_notice
from recipes.config import ScalingBlock
from tests.cluster.files import CLUSTER, changes, command_in_comments, config_of, image_tag, locked, values

CLOUDS = ["aws", "gcp", "azure"]
RAY = Path(ray.autoscaler.__file__).parent
TOKEN = "/home/ray/.ray/auth_token"

# The parameters of EC2's RunInstances (botocore 1.44.8) that a node_config may give; Ray gives the others.
# SubnetIds is Ray's own.
EC2 = """BlockDeviceMappings CapacityReservationSpecification CpuOptions CreditSpecification DisableApiStop
    DisableApiTermination EbsOptimized EnablePrimaryIpv6 EnclaveOptions HibernationOptions IamInstanceProfile ImageId
    InstanceInitiatedShutdownBehavior InstanceMarketOptions InstanceType Ipv6AddressCount Ipv6Addresses KernelId KeyName
    LaunchTemplate LicenseSpecifications MaintenanceOptions MetadataOptions Monitoring NetworkInterfaces
    NetworkPerformanceOptions Operator Placement PrivateDnsNameOptions PrivateIpAddress RamdiskId SecondaryInterfaces
    SecurityGroupIds SecurityGroups SubnetId TagSpecifications UserData SubnetIds"""
# Compute Engine v1 (its discovery document): the fields of an Instance that a request may give, and of its parts.
GCE = {
    (): """advancedMachineFeatures canIpForward confidentialInstanceConfig deletionProtection description disks
    displayDevice guestAccelerators hostname instanceEncryptionKey keyRevocationActionType labels localSsdEncryptionMode
    machineType metadata minCpuPlatform name networkInterfaces networkPerformanceConfig params privateIpv6GoogleAccess
    reservationAffinity resourcePolicies scheduling serviceAccounts shieldedInstanceConfig
    shieldedInstanceIntegrityPolicy sourceMachineImage sourceMachineImageEncryptionKey tags workloadIdentityConfig""",
    (
        "disks",
    ): """architecture autoDelete boot deviceName diskEncryptionKey diskSizeGb forceAttach guestOsFeatures index
    initializeParams interface kind licenses mode source type""",
    ("disks", "initializeParams"): """architecture description diskName diskSizeGb diskType labels licenses
    provisionedIops provisionedThroughput replicaZones resourceManagerTags resourcePolicies sourceImage sourceSnapshot
    storagePool""",
    ("networkInterfaces",): """accessConfigs aliasIpRanges ipv6AccessConfigs kind name network networkAttachment
    networkIP nicType queueCount stackType subnetwork""",
    ("networkInterfaces", "accessConfigs"): "kind name natIP networkTier publicPtrDomainName securityPolicy type",
    ("serviceAccounts",): "email scopes",
    ("metadata",): "items kind",
    ("metadata", "items"): "key value",
    ("scheduling",): """automaticRestart availabilityDomain hostErrorTimeoutSeconds instanceTerminationAction
    localSsdRecoveryTimeout locationHint maxRunDuration minNodeCpus nodeAffinities onHostMaintenance
    onInstanceStopAction preemptible provisioningModel terminationTime""",
}


def text_of(cloud: str) -> str:
    return (CLUSTER / f"{cloud}.yaml").read_text(encoding="utf-8")


@pytest.fixture(params=CLOUDS)
def cloud(request) -> str:
    return request.param


@pytest.fixture
def config(cloud) -> dict:
    return yaml.safe_load(text_of(cloud))


def checked(config: dict) -> dict:
    full = prepare_config(copy.deepcopy(config))
    validate_config(full)
    return full


def node_configs(config: dict) -> dict[str, dict]:
    return {name: kind["node_config"] for name, kind in config["available_node_types"].items()}


def starts(config: dict) -> dict[str, str]:
    """The one `ray start` command of the head and of the workers."""
    found = {}
    for place in ("head", "worker"):
        commands = [c for c in config[f"{place}_start_ray_commands"] if "ray start" in c]
        assert len(commands) == 1
        found[place] = commands[0]
    return found


def test_rays_own_schema_and_preparation(config):
    full = checked(config)
    assert full["available_node_types"]["head"]["max_workers"] == 0
    assert full["available_node_types"]["gpu"]["min_workers"] == 2
    # Ray's defaults install a nightly Ray and an SDK without a version where nothing is said.
    assert full["head_setup_commands"] == full["worker_setup_commands"] == config["setup_commands"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda c: c.update(idle_timeout=5), "idle_timeout"),
        (lambda c: c["available_node_types"]["gpu"].update(min_wokers=1), "min_wokers"),
        (lambda c: c["available_node_types"]["gpu"].pop("resources"), "resources"),
        (lambda c: c["docker"].update(images="x"), "images"),
        (lambda c: c.update(head_node_type="heads"), "head_node_type"),
        (lambda c: c.update(max_workers=1), "max_workers"),
    ],
)
def test_what_rays_schema_catches(config, wrong, message):
    wrong(config)
    with pytest.raises(Exception, match=message):
        checked(config)


def test_provider_keys_are_ones_ray_reads(cloud, config):
    folders = [RAY / "_private", RAY / "_private" / {"azure": "_azure"}.get(cloud, cloud)]
    read = {"type"}
    for source in (path for folder in folders for path in folder.glob("*.py")):
        pattern = r"""provider(?:_config|_cfg)?(?:["']\]|["'], \{\}\))?(?:\.get\(\s*|\[)["'](\w+)["']"""
        read |= set(re.findall(pattern, source.read_text(encoding="utf-8")))
    assert {"region" if cloud != "azure" else "location", "cache_stopped_nodes"} <= read
    assert set(config["provider"]) <= read


def test_aws_node_config_keys():
    for node_config in node_configs(yaml.safe_load(text_of("aws"))).values():
        assert set(node_config) <= set(EC2.split())


def test_aws_node_config_is_a_request_ec2_takes():
    session = pytest.importorskip("botocore.session", reason="botocore is not installed")
    from botocore.validate import ParamValidator

    shape = session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for node_config in node_configs(yaml.safe_load(text_of("aws"))).values():
        request = node_config | {"MinCount": 1, "MaxCount": 1, "SubnetId": "subnet-0"}
        report = ParamValidator().validate(request, shape)
        assert not report.has_errors(), report.generate_report()


def test_gcp_node_config_keys():
    for node_config in node_configs(yaml.safe_load(text_of("gcp"))).values():
        for path, _ in values(node_config):
            names = tuple(key for key in path if isinstance(key, str))
            for depth, name in enumerate(names):
                assert name in GCE[names[:depth]].split(), ".".join(names)


def test_gcp_node_config_is_an_instance():
    cache = pytest.importorskip("googleapiclient.discovery_cache", reason="google-api-python-client is not installed")
    schemas = json.loads((Path(cache.__file__).parent / "documents" / "compute.v1.json").read_text())["schemas"]

    def check(value, schema, where):
        schema = schemas[schema["$ref"]] if "$ref" in schema else schema
        if isinstance(value, dict):
            assert set(value) <= set(schema["properties"]), where
            for key, child in value.items():
                check(child, schema["properties"][key], f"{where}.{key}")
        elif isinstance(value, list):
            for child in value:
                check(child, schema["items"], where)
        else:
            assert value in schema.get("enum", [value]), where

    for name, node_config in node_configs(yaml.safe_load(text_of("gcp"))).items():
        check(node_config, {"$ref": "Instance"}, name)


def test_azure_parameters_are_those_of_rays_template():
    template = json.loads((RAY / "_private" / "_azure" / "azure-vm-template.json").read_text(encoding="utf-8"))
    parameters = template["parameters"] | {"availability_zone": {"type": "string"}}
    kinds = {"string": str, "int": int, "object": dict, "bool": bool}
    by_ray = {"vmName", "vmTags", "vmCount", "msi", "nsg", "subnet", "zones", "provisionPublicIp"}
    for node_config in node_configs(yaml.safe_load(text_of("azure"))).values():
        assert set(node_config) == {"azure_arm_parameters"}
        for name, value in node_config["azure_arm_parameters"].items():
            assert name not in by_ray
            assert type(value) is kinds[parameters[name]["type"]], name


def test_head_takes_no_training_work(config):
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert {"--num-cpus=0", "--num-gpus=0"} <= set(starts(config)["head"].split())
    assert config["available_node_types"]["gpu"]["resources"]["GPU"] >= 1


def test_workers_are_spot_and_the_head_is_not(cloud, config):
    def is_spot(node_config: dict) -> bool:
        return {
            "aws": lambda: node_config.get("InstanceMarketOptions", {}).get("MarketType") == "spot",
            "gcp": lambda: node_config.get("scheduling", {}).get("provisioningModel") == "SPOT",
            "azure": lambda: node_config["azure_arm_parameters"].get("priority") == "Spot",
        }[cloud]()

    found = {name: is_spot(node_config) for name, node_config in node_configs(config).items()}
    assert found == {"head": False, "gpu": True}


def test_commands_that_ray_start_accepts(config):
    for place, command in starts(config).items():
        words = shlex.split(command.split("; ", 1)[1])
        assert words[:3] == ["RAY_AUTH_MODE=token", "ray", "start"]
        options = start.make_context("start", words[3:]).params
        assert options["head"] is (place == "head")
        assert options["object_manager_port"] == 8076
        assert options["disable_usage_stats"] is True
        if place == "head":
            assert options["port"] == 6379
            assert options["autoscaling_config"] == "~/ray_bootstrap_config.yaml"
            assert options["dashboard_host"] == "127.0.0.1"
        else:
            assert options["address"] == "$RAY_HEAD_IP:6379"


def test_workers_watch_for_their_clouds_notice(cloud, config):
    *_, watch, _ = config["worker_start_ray_commands"]
    words = shlex.split(watch)
    assert words[words.index("-m") + 1 :][:3] == [spot_notice.__name__, cloud, "--address=$RAY_HEAD_IP:6379"]
    assert cloud in spot_notice.CLOUDS
    assert not any("spot_notice" in command for command in config["head_start_ray_commands"])


def test_token_comes_from_a_file_and_is_checked(config, tmp_path):
    assert "--env=RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {TOKEN: "~/.ray/auth_token"}
    check = next(c for c in config["setup_commands"] if "auth_token" in c)
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("x")
    codes = []
    for mode in (0o600, 0o644):
        token.chmod(mode)
        codes.append(
            subprocess.run(["bash", "-c", check], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}).returncode
        )
    assert codes[0] == 0
    assert codes[1] != 0


def test_setup_refuses_another_ray_and_a_bucket_it_cannot_write(config, tmp_path):
    by_word = {
        word: shlex.split(next(c for c in config["setup_commands"] if word in c))[1:]
        for word in ("ray.__version__", "T5_STORAGE")
    }
    assert f'"{locked("ray")}"' in by_word["ray.__version__"][1]
    for storage, code in ((tmp_path, 0), ("/proc/none", 1)):
        run = subprocess.run(
            [sys.executable, *by_word["T5_STORAGE"]],
            env={"T5_STORAGE": str(storage)},
            capture_output=True,
            cwd=CLUSTER.parent,
        )
        assert run.returncode == code, run.stderr


def test_nothing_is_open_to_the_world(cloud, config):
    everything = node_configs(config)
    if cloud == "aws":  # without a group of ours Ray makes one that lets the world at port 22
        for node_config in everything.values():
            assert node_config["SecurityGroupIds"] == ["sg-00000000000000000"]
            assert node_config["MetadataOptions"]["HttpTokens"] == "required"
    elif cloud == "gcp":  # without a subnet of ours Ray takes the first of the project, and public addresses
        assert all("subnetwork" in node_config["networkInterfaces"][0] for node_config in everything.values())
        assert "accessConfigs" not in everything["gpu"]["networkInterfaces"][0]
    else:  # Ray's own security group lets the world at port 22, so there must be no public address
        assert config["provider"]["use_internal_ips"] is True
        assert "use_external_head_ip" not in config["provider"]


def test_image_is_pinned(cloud, config):
    docker = config["docker"]
    assert docker["image"].split(":")[-1] == image_tag()
    assert not {"head_image", "worker_image"} & set(docker)
    assert "@sha256:" in text_of(cloud)


def test_idle_limit_is_above_a_restart(config):
    # A worker that hangs is noticed after hang_timeout_s at the latest; until the restart the others are idle.
    assert config["idle_timeout_minutes"] * 60 > ScalingBlock().hang_timeout_s
    gpu = config["available_node_types"]["gpu"]
    assert gpu["min_workers"] <= gpu["max_workers"] == config["max_workers"]


def test_the_job_in_the_comment_fits_the_cluster(cloud, config):
    command = command_in_comments(text_of(cloud), "ray job submit")
    assert "--address http://127.0.0.1:8265 --working-dir . -- " in command
    run = config_of(command)
    gpu = config["available_node_types"]["gpu"]
    assert run.scaling.use_gpu
    assert run.scaling.num_workers == gpu["min_workers"] * gpu["resources"]["GPU"]
    assert f"--env=T5_STORAGE={run.run.storage_path}" in config["docker"]["run_options"]
    assert run.run.resume == "auto"
    for verb in ("up", "down"):
        assert f"ray {verb} -y cluster/{cloud}.yaml" in text_of(cloud)


def test_five_lines_to_change(cloud):
    assert changes(text_of(cloud)) == ["1", "2", "3", "4", "5"]


SHARED = sorted(CLUSTER.rglob("*.yaml"))


@pytest.mark.parametrize("path", SHARED, ids=lambda path: str(path.relative_to(CLUSTER)))
def test_no_secret_and_no_open_door_in_any_yaml(path):
    text = path.read_text(encoding="utf-8")
    documents = list(yaml.safe_load_all(text))
    assert "0.0.0.0/0" not in text
    assert "::/0" not in text
    for where, value in values(documents):
        if not isinstance(value, str):
            continue
        assert not re.search(r"\b[0-9a-fA-F]{32,}\b", value), where
        assert not re.search(r"RAY_AUTH_TOKEN=", value), where
        assert not re.search(r"BEGIN [A-Z ]*PRIVATE KEY|AKIA[0-9A-Z]{16}", value), where
        assert "dashboard-host=0.0.0.0" not in value, where
        if where[-1] == "dashboard-host":
            # Needed by KubeRay's operator; test_kuberay.py checks what stands before it.
            assert value == ("0.0.0.0" if path.name == "rayjob.yaml" else "127.0.0.1"), where
