"""All checks of `recipes.doctor`."""

from __future__ import annotations

import urllib.error
import urllib.request

from recipes.clusters import findings
from recipes.clusters.findings import Finding
from recipes.clusters.probe import Node, Probes, nodes
from recipes.config import ScalingBlock
from recipes.errors import UserError
from recipes.launching.ray_cluster import needed_resources
from recipes.storage import Storage

# The smallest tells the latency, the largest the bandwidth.
_SIZES = [4, 16 * 2**20]
_SLOW_BITS_PER_S = 1e9


def examine(scaling: ScalingBlock, place: Storage | None) -> list[Finding]:
    """place: run.storage_path, None where no config was given.

    Raises:
        UserError: this process cannot write to the storage.
        RunFailed: a node does not answer.
    """
    everything = nodes()
    able = [node for node in everything if node.num_workers(needed_resources(scaling))] or everything
    with Probes(able) as probes:
        looks = probes.looks(with_gpus=True)
        found = [
            findings.resources(everything, scaling),
            findings.versions(able, looks),
            findings.gpus(able, looks, scaling.use_gpu),
            findings.interface(able, looks, scaling.network_interface),
            findings.ports(able, looks),
            findings.clocks(able, looks),
            findings.room_on_disk(able, looks),
            findings.shared_memory(able, looks),
        ]
        if place is not None:
            found.append(findings.storage(probes, place))
    found.append(_bandwidth(able, scaling))
    found.append(_token())
    return found


def _bandwidth(able: list[Node], scaling: ScalingBlock) -> Finding:
    """An all-reduce between the nodes, one process on each, over what training would use."""
    if len(able) == 1:
        return Finding("ok", "all-reduce", "one node: nothing goes over the network")
    backend = "nccl" if scaling.use_gpu else "gloo"
    with Probes(able, num_gpus=1 if scaling.use_gpu else 0) as probes:
        (meeting, *_) = probes.ask("free_address")
        arguments = [
            (meeting, rank, len(able), backend, scaling.network_interface, _SIZES) for rank in range(len(able))
        ]
        try:
            times = probes.ask_each("all_reduce_s", arguments)
        except UserError as error:
            return Finding("bad", "all-reduce", f"not tried: {error}", "leave scaling.network_interface out")
        except Exception as error:
            words = (str(error).strip() or type(error).__name__).splitlines()[0]
            return Finding(
                "bad", "all-reduce", f"{backend} found no way between the nodes: {words}",
                "open all ports between the nodes to each other; set scaling.network_interface",
            )  # fmt: skip
    small_s, large_s = (max(each) for each in zip(*times, strict=True))
    # What each link carries in a ring: 2 (n - 1) / n times the data.
    bits_per_s = 8 * _SIZES[1] * 2 * (len(able) - 1) / len(able) / large_s
    words = f"{backend} over {len(able)} nodes: {small_s * 1e3:.2f} ms for 4 bytes, {bits_per_s / 1e9:.2f} Gbit/s for 16 MiB"
    if bits_per_s < _SLOW_BITS_PER_S:
        return Finding(
            "note", "all-reduce", words, "training will wait for the network: python -m recipes.plan says how long"
        )
    return Finding("ok", "all-reduce", words)


def _token() -> Finding:
    """Whether the cluster lets in who has no token: whoever reaches a Ray cluster can run any code on it."""
    import ray

    url = ray._private.worker._global_node.webui_url
    if not url:
        return Finding(
            "ok",
            "token",
            "no dashboard and no jobs API runs, so none can be asked; RAY_AUTH_MODE=token asks all others",
        )
    remedy = "set RAY_AUTH_MODE=token on every node and give each the same token (docs/clusters.md)"
    try:
        with urllib.request.urlopen(f"http://{url}/api/version", timeout=10):
            return Finding(
                "note", "token", f"http://{url} answers anybody who reaches it, and runs what they send", remedy
            )
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return Finding("ok", "token", f"http://{url} refuses who has none")
        return Finding("note", "token", f"http://{url} answers {error.code}", remedy)
    except OSError as error:
        return Finding(
            "note", "token", f"http://{url} cannot be asked from here: {getattr(error, 'reason', error)}", remedy
        )
