"""What is looked at before every run on more than one node: seconds now instead of a failure later."""

from __future__ import annotations

from collections.abc import Callable

from recipes.clusters import findings
from recipes.clusters.probe import Probes, nodes
from recipes.config import ScalingBlock
from recipes.errors import UserError
from recipes.launching.network import check_interface
from recipes.launching.ray_cluster import needed_resources
from recipes.storage import Storage


def check_nodes(scaling: ScalingBlock, place: Storage, say: Callable[[str], None]) -> None:
    """Versions, storage, network interface and clocks of the nodes that could hold workers.

    Raises:
        UserError: a run would fail; with the remedy.
        RunFailed: a node does not answer.
    """
    everything = nodes()
    if len(everything) == 1:
        check_interface(scaling.network_interface)
        return
    able = [node for node in everything if node.num_workers(needed_resources(scaling))]
    if not able:
        return  # they are still to come; Ray Train waits for them
    with Probes(able) as probes:
        looks = probes.looks(with_gpus=False)
        found = [
            findings.versions(able, looks),
            findings.storage(probes, place),
            findings.interface(able, looks, scaling.network_interface),
            findings.clocks(able, looks),
        ]
    bad = [each for each in found if each.level == "bad"]
    if bad:
        raise UserError("\n".join(f"{each.subject}: {each.found}; {each.remedy}" for each in bad))
    for each in found:
        if each.level == "note":
            say(f"{each.subject}: {each.found} ({each.remedy})")
