"""YAML that says each thing once."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def unique_key_loader() -> Any:
    """A safe YAML loader that refuses a key written twice: one of the two would win unseen."""
    import yaml

    class UniqueKeyLoader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key_node, _ in node.value:
                if key_node.value in seen and key_node.tag != "tag:yaml.org,2002:merge":
                    raise yaml.YAMLError(f"the key {key_node.value!r} is written twice{key_node.start_mark}")
                if isinstance(key_node.value, str):
                    seen.add(key_node.value)
            return super().construct_mapping(node, deep)

    return UniqueKeyLoader
