"""What the doctor says of nodes that differ, from what their probes could have found."""

from dataclasses import replace

import pytest

from recipes.clusters import findings
from recipes.clusters.probe import Look, Node
from recipes.config import ScalingBlock

GIB = 2**30
NODES = [
    Node("1", "10.0.0.1", "a", {"CPU": 4.0, "GPU": 2.0}),
    Node("2", "10.0.0.2", "b", {"CPU": 3.0}),
]
LOOK = Look(
    versions={"python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0"},
    gpus=(("H100", 80 * GIB), ("H100", 80 * GIB)),
    interface="eth0",
    interfaces={"lo": "127.0.0.1", "eth0": "10.0.0.1"},
    free_bytes=100 * GIB,
    shm_bytes=8 * GIB,
)
OTHER = replace(LOOK, gpus=())


def test_nodes_that_agree():
    for found in (
        findings.versions(NODES, [LOOK, LOOK]),
        findings.interface(NODES, [LOOK, LOOK], None),
        findings.interface(NODES, [LOOK, LOOK], "eth0"),
        findings.ports(NODES[:1], [LOOK]),
        findings.clocks(NODES, [LOOK, LOOK]),
        findings.room_on_disk(NODES, [LOOK, LOOK]),
        findings.shared_memory(NODES, [LOOK, LOOK]),
        findings.gpus(NODES, [LOOK, OTHER], wanted=True),
    ):
        assert (found.level, found.remedy) == ("ok", "")


def test_another_version_is_named_with_its_nodes():
    other = replace(LOOK, versions=LOOK.versions | {"torch": None, "ray": "2.61.0"})
    found = findings.versions(NODES, [LOOK, other])
    assert found.level == "bad"
    assert found.found == (
        "ray is 2.60.0 on a (10.0.0.1), 2.61.0 on b (10.0.0.2); torch is 2.13.0 on a (10.0.0.1), missing on b (10.0.0.2)"
    )
    nowhere = replace(LOOK, versions=LOOK.versions | {"torch": None})
    assert findings.versions(NODES, [nowhere, nowhere]).found == "not installed on any node: torch"


@pytest.mark.parametrize(
    ("scaling", "level", "room"),
    [
        (ScalingBlock(num_workers=7), "ok", 7),
        (ScalingBlock(num_workers=8), "bad", 7),
        (ScalingBlock(num_workers=3, cpus_per_worker=2), "ok", 3),  # 2 + 1: no worker is cut in two
        (ScalingBlock(num_workers=4, cpus_per_worker=2), "bad", 3),
        (ScalingBlock(num_workers=2, use_gpu=True), "ok", 2),
        (ScalingBlock(num_workers=3, use_gpu=True), "bad", 2),
        (ScalingBlock(min_workers=2, max_workers=9, max_failures=1, use_gpu=True), "ok", 2),
    ],
)
def test_room_counts_whole_workers(scaling, level, room):
    found = findings.resources(NODES, scaling)
    assert found.level == level
    assert found.found.startswith(f"room for {room} workers")


def test_gpus_that_ray_promises_and_torch_does_not_see():
    found = findings.gpus(NODES, [OTHER, OTHER], wanted=True)
    assert (found.level, found.found) == ("bad", "a (10.0.0.1): Ray hands out 2, torch sees 0")
    assert findings.gpus(NODES[1:], [OTHER], wanted=True).level == "bad"
    assert findings.gpus(NODES[1:], [OTHER], wanted=False).level == "ok"


def test_interfaces():
    found = findings.interface(NODES, [LOOK, replace(LOOK, interfaces={"lo": "127.0.0.1", "ens3": "10.0.0.2"})], "eth0")
    assert (found.level, found.remedy) == ("bad", "leave it out, or name one that all nodes have (lo)")
    assert "missing on b (10.0.0.2)" in found.found
    assert findings.interface(NODES, [LOOK, replace(LOOK, interface=None)], None).level == "note"


def test_addresses_on_which_ray_listens_besides():
    more = replace(LOOK, interfaces={"lo": "127.0.0.1", "eth0": "10.0.0.2", "docker0": "172.17.0.1"})
    found = findings.ports(NODES, [LOOK, more])
    assert (found.level, found.found) == ("note", "open on docker0 (172.17.0.1) of b (10.0.0.2) too")
    assert (
        found.remedy == "let a firewall close all TCP ports there to all but the cluster's nodes (cluster/firewall.nft)"
    )
    public = replace(NODES[0], address="8.8.4.4")
    found = findings.ports([public], [replace(LOOK, interfaces={"lo": "127.0.0.1", "eth0": "8.8.4.4"})])
    assert (found.level, found.found) == ("note", "the addresses of a (8.8.4.4) are public")


@pytest.mark.parametrize(
    ("off", "error", "level"), [(0.9, 0.0, "ok"), (1.1, 0.0, "note"), (1.1, 0.1, "ok"), (-7.0, 0.5, "note")]
)
def test_clocks(off, error, level):
    found = findings.clocks(NODES, [LOOK, replace(LOOK, clock_off_s=off, clock_error_s=error)])
    assert found.level == level
    if level == "note":
        assert "b (10.0.0.2) differs most" in found.found


def test_little_room():
    assert "b (10.0.0.2): 9.0 GiB" in findings.room_on_disk(NODES, [LOOK, replace(LOOK, free_bytes=9 * GIB)]).found
    assert "b (10.0.0.2): 0.06 GiB" in findings.shared_memory(NODES, [LOOK, replace(LOOK, shm_bytes=64 * 2**20)]).found
