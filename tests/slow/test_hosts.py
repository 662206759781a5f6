"""Clusters of several hosts with their own addresses and file systems (cluster/test_hosts): ray up, jobs, Slurm. Root."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from cluster.test_hosts.hosts import Hosts, HostsError, check_possible
from cluster.test_hosts.lab import CHECKOUT, Lab
from tests.conftest import small_run, write_pairs
from tests.many_texts import cached, in_tasks, write_texts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def possible():
    try:
        check_possible()
    except HostsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def lab(possible, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    lab = Lab(folder / "hosts", folder / "shared", prefix="t5t", network="10.81.0")
    lab.up()
    write_pairs(lab.shared / "pairs.jsonl")
    yield lab
    if (folder / "hosts").exists():
        lab.down()


def job(lab, words, timeout_s=300):
    """As from the operator's machine: `ray exec` on the head, where the checkout lies and the jobs API listens."""
    submit = f"cd t5-on-ray && ray job submit --address http://127.0.0.1:8265 --runtime-env cluster/job.yaml --working-dir . -- {words}"
    command = f"cd {CHECKOUT} && ray exec {lab.shared}/on_prem.yaml {shlex.quote(submit)}"
    return lab.do("op", command, timeout_s, check=False)


def arguments(lab, *overrides):
    """Two CPUs for each worker: no host holds both."""
    words = small_run(lab.shared / "pairs.jsonl", lab.shared / "runs", "scaling.cpus_per_worker=2", *overrides)
    return " ".join(["python -m recipes.train", *words])


def losses(lab, name):
    lines = (lab.shared / "runs" / name / "metrics.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def test_the_doctor_finds_a_cluster_of_two_workers_and_no_fault(lab):
    write = small_run(lab.shared / "pairs.jsonl", lab.shared / "runs", "scaling.cpus_per_worker=2")
    said = job(lab, " ".join(["python -m recipes.doctor", *write])).stdout
    assert "room for 2 workers of 2 CPU: 0 on head (10.81.0.1), 1 on w1 (10.81.0.2), 1 on w2 (10.81.0.3)" in said
    assert "interface" in said
    assert "eth0 on w1 (10.81.0.2)" in said
    assert "written here and read on all 2 nodes" in said
    assert "gloo over 2 nodes" in said
    assert "http://127.0.0.1:8265 refuses who has none" in said
    assert "all 11 checks passed" in said


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_training_over_two_hosts(lab, stage):
    words = arguments(lab, f"run.name=stage{stage}", f"deepspeed.zero_stage={stage}", "model.shape.dropout_rate=0")
    result = job(lab, words)
    assert result.returncode == 0, result.stdout
    assert "training from update 0 of 8 on 2 workers" in result.stdout
    assert len(losses(lab, f"stage{stage}")) == 8
    assert losses(lab, f"stage{stage}") == pytest.approx(losses(lab, "stage1"), rel=1e-5)


def test_texts_that_the_head_alone_has_are_tokenised_by_the_others(lab):
    write_texts(lab.shared)
    lab.do("head", f"mkdir /srv/texts && mv {lab.shared}/pairs.jsonl {lab.shared}/tokenizer /srv/texts")
    assert lab.do("w1", "ls /srv/texts", check=False).returncode != 0
    words = in_tasks(Path("/srv/texts"), lab.shared / "many", 4)
    result = job(lab, " ".join(["python -m recipes.train", *map(shlex.quote, words)]))
    assert result.returncode == 0, result.stdout
    assert "data: tokenising in 4 tasks on the cluster at " in result.stdout
    # The head has no CPU for Ray: these were the others.
    assert "training from update 0 of 8 on 2 workers" in result.stdout
    assert cached(lab.shared / "many") == cached(lab.shared / "alone")
    write_pairs(lab.shared / "pairs.jsonl")


def test_a_path_that_the_hosts_do_not_share_is_refused(lab):
    result = job(lab, arguments(lab, "run.name=private", "run.storage_path=/var/runs"))
    assert result.returncode == 1
    assert "storage: /var/runs: what is written here is not seen on w" in result.stdout
    assert "give a run.storage_path that every node mounts" in result.stdout
    assert "Traceback" not in result.stdout
    assert lab.do("head", "ls /var/runs/private", check=False).returncode != 0


def test_an_interface_that_a_host_has_not_is_refused(lab):
    result = job(lab, arguments(lab, "run.name=wrong", "scaling.network_interface=ib0"))
    assert "network interface: scaling.network_interface is ib0, which is missing on w" in result.stdout


def test_a_host_without_the_token_gets_nothing(lab):
    refused = lab.do("op", "HOME=/tmp ray job list --address http://head:8265", check=False)
    assert refused.returncode != 0  # the dashboard listens on the head's loopback only
    refused = lab.do("head", "HOME=/tmp ray job list --address http://127.0.0.1:8265", check=False)
    assert refused.returncode != 0
    assert "token" in (refused.stdout + refused.stderr).lower()
    joins = f"HOME=/tmp ray start --address={lab.address} --num-cpus=1"
    assert lab.do("op", joins, 120, check=False).returncode != 0


def test_the_jobs_api_and_the_dashboard_listen_on_loopback_only(lab):
    listening = lab.do("head", "ss -ltnH | awk '{print $4}'").stdout.split()
    assert "127.0.0.1:8265" in listening
    assert not [place for place in listening if place.endswith(":8265") and not place.startswith("127.")]


def test_no_secret_in_what_a_run_leaves(lab):
    token = lab.do("op", "cat ~/.ray/auth_token").stdout.strip()
    folder = lab.shared / "runs" / "stage2"
    with_token = [path for path in folder.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert with_token == []


def test_the_firewall_leaves_ray_to_the_clusters_own_hosts(lab):
    if shutil.which("nft") is None:
        pytest.skip("nftables is not installed")
    others = [f"{lab.hosts.address('head')} 6379", f"{lab.hosts.address('w1')} {raylet_port(lab, 'w1')}"]
    assert [reaches(lab, "op", *place.split()) for place in others] == [True, True]
    addresses = ", ".join(lab.hosts.address(host) for host in ("head", "w1", "w2"))
    rules = re.sub(r"(?<=define CLUSTER = \{ )[^}]*(?= \})", addresses, (CHECKOUT / "cluster/firewall.nft").read_text())
    (lab.shared / "firewall.nft").write_text(rules)
    for host in ("head", "w1", "w2"):
        for _ in range(2):  # the second time it replaces the first
            lab.do(host, f"nft -f {lab.shared}/firewall.nft")
    assert [reaches(lab, "op", *place.split()) for place in others] == [False, False]
    assert reaches(lab, "op", lab.hosts.address("head"), "22")
    assert [reaches(lab, "w2", *place.split()) for place in others] == [True, True]
    result = job(lab, arguments(lab, "run.name=walled", "deepspeed.zero_stage=1", "model.shape.dropout_rate=0"))
    assert result.returncode == 0, result.stdout
    assert losses(lab, "walled") == pytest.approx(losses(lab, "stage1"), rel=1e-5)
    for host in ("head", "w1", "w2"):
        lab.do(host, "nft delete table inet t5_ray")
    assert reaches(lab, "op", *others[0].split())


def raylet_port(lab, host):
    said = lab.do(host, "ss -ltnpH | grep raylet").stdout
    return next(
        place.rsplit(":", 1)[1] for place in said.split() if place.startswith(("*:", "0.0.0.0:")) and place[-1] != "*"
    )


def reaches(lab, host, address, port):
    return lab.do(host, f"timeout 5 bash -c 'echo > /dev/tcp/{address}/{port}'", check=False).returncode == 0


def test_slurms_script_over_two_hosts(lab):
    """srun's stand-in starts the command on both hosts over ssh, with the environment, as srun would."""
    site = lab.shared / "slurm"
    (site / "bin").mkdir(parents=True)
    (site / "bin" / "srun").write_text(
        """#!/bin/bash
while [ "${1#--}" != "$1" ]; do shift; done
passed=$(env | grep -E '^(RAY_|PATH|SLURM_)' | sed "s/'/'\\\\\\\\''/; s/=/='/; s/$/'/" | tr '\\n' ' ')
for host in w1 w2; do ssh "$host" "cd $PWD && export $passed && $(printf '%q ' "$@")" & pids+=($!); done
code=0
for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
exit $code
""",
        encoding="utf-8",
    )
    (site / "bin" / "srun").chmod(0o755)
    text = (CHECKOUT / "cluster" / "slurm" / "train.sbatch").read_text()
    for line, value in (
        ("gpus_per_node=4", "0"),
        ("project=$SLURM_SUBMIT_DIR", str(CHECKOUT)),
        ("storage=$project/runs", str(lab.shared / "runs")),
    ):
        assert line in text
        text = text.replace(line, f"{line.split('=')[0]}={value}", 1)
    (site / "train.sbatch").write_text(text)
    # A node of its own for each job: Ray's of `ray up` must not be on it.
    lab.ray_down()
    words = arguments(lab, "run.name=slurm", "model.shape.dropout_rate=0").split()[3:]
    command = f"cd {CHECKOUT} && SLURM_JOB_ID=7 SLURM_JOB_NUM_NODES=2 SLURM_CPUS_PER_TASK=2 bash {site}/train.sbatch {' '.join(words)}"
    result = lab.do("w1", f"PATH={site}/bin:$PATH; {command}", 300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "on 2 workers" in result.stdout + result.stderr
    assert losses(lab, "slurm") == pytest.approx(losses(lab, "stage1"), rel=1e-5)
    assert not list((lab.shared / "runs").glob(".ray_token*"))


def test_after_ray_down_no_ray_is_left_on_any_host(lab):
    """After the test before, which took it down."""
    for host in ("head", "w1", "w2"):
        left = lab.do(host, "pgrep -x 'raylet|gcs_server' | wc -l").stdout.strip()
        assert left == "0"


def test_hosts_have_their_own_files_addresses_and_cables(possible, tmp_path):
    (tmp_path / "shared").mkdir()
    hosts = Hosts(tmp_path / "hosts", "t5u", "10.82.0", (tmp_path / "shared",))
    hosts.up(["a", "b"])

    def run(host, words):
        import subprocess

        command = hosts.command(host, "bash", "-c", words)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    try:
        assert run("a", "ssh b hostname").stdout == "b\n"
        run("a", f"touch /etc/only_a {tmp_path}/shared/both")
        assert run("b", f"ls /etc/only_a {tmp_path}/shared/both").stdout == f"{tmp_path}/shared/both\n"
        hosts.drop("b")
        assert run("a", "timeout 2 ssh -o ConnectTimeout=1 b hostname").returncode != 0
        hosts.undrop("b")
        assert run("a", "ssh b hostname").stdout == "b\n"
        hosts.slow("b", 200)
        slow = run("a", "time -p ssh b true").stderr
        assert float(slow.split("real")[1].split()[0]) > 1.0  # an ssh takes several round trips of 400 ms
        hosts.unslow("b")
        hosts.off("b")
        assert hosts.pid("b") is None
        hosts.on("b")
        assert run("b", "ls /etc/only_b").returncode != 0
        with pytest.raises(HostsError, match="no host c; there are: a, b"):
            hosts.off("c")
    finally:
        hosts.down()
    assert not (tmp_path / "hosts").exists()
