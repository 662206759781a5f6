"""A local Ray that stands a second earlier."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_POLL_S, _MOST_S = 0.05, 10.0


@contextmanager
def node_asked_for_often() -> Iterator[None]:
    """For the block, `ray.init` learns at once that the node which it starts has registered.

    Ray 2.60 asks inside C++, at once, when it cannot be there yet, and then once a second.
    """
    from ray._private import services

    asked_by_ray = services.get_node

    def get_node(gcs_address: str, node_id: str) -> Any:
        _wait_for_node(gcs_address, node_id)
        return asked_by_ray(gcs_address, node_id)

    services.get_node = get_node
    try:
        yield
    finally:
        services.get_node = asked_by_ray


def _wait_for_node(gcs_address: str, node_id: str) -> None:
    """Until it has registered. When that takes long, or cannot be found out, Ray's own question has the last word."""
    import ray
    from ray._raylet import GcsClient

    client, end = GcsClient(address=gcs_address), time.monotonic() + _MOST_S
    while time.monotonic() < end:
        try:
            if any(found.hex() == node_id for found in client.get_all_node_info(timeout=_MOST_S)):
                return
        except ray.exceptions.RayError:
            return
        time.sleep(_POLL_S)
