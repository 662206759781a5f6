"""docs/config.md, made from the config's own descriptions: ``python -m recipes.config_reference > docs/config.md``."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from recipes.config import RunConfig
from recipes.config_file import model_in
from recipes.sweeping.sweep_config import SweepConfig

_HEAD = """# Every key of a config

Made from the config's own descriptions by `python -m recipes.config_reference > docs/config.md`; a test keeps it
up to date. On the command line a key is written with dots: `schedule.peak_lr=3e-4`.
"""


_SWEEP = """# Every key of a sweep

`base` is a run, with the keys above; `space` is told in [sweeps.md](sweeps.md).
"""


def markdown() -> str:
    """One table per block, in the order of a config file; then those of a sweep's."""
    own = {name: field for name, field in SweepConfig.model_fields.items() if name not in ("base", "space")}
    parts = [_HEAD, *_tables(RunConfig.model_fields), _SWEEP, *_tables(own)]
    return "\n".join(parts).rstrip() + "\n"


def _tables(blocks: dict[str, FieldInfo]) -> list[str]:
    parts = []
    for name, field in blocks.items():
        parts.append(f"## {name}\n\n{field.description}\n\n| key | default | meaning |\n|---|---|---|")
        parts.extend(_rows(model_in(field.annotation), f"{name}."))
        parts.append("")
    return parts


def _rows(block: type[BaseModel], prefix: str) -> list[str]:
    rows = []
    for name, field in block.model_fields.items():
        inner = model_in(field.annotation)
        rows.append(f"| `{prefix}{name}` | {_default(field, inner)} | {field.description} |")
        if inner is not None:
            rows.extend(_rows(inner, f"{prefix}{name}."))
    return rows


def _default(field: Any, inner: type[BaseModel] | None) -> str:
    if field.default is PydanticUndefined and field.default_factory is None:
        return "required"
    if field.default is None or (inner is not None and field.default_factory is not None):
        return "none" if field.default is None and inner is None else ""
    value = field.default_factory() if field.default_factory is not None else field.default
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    print(markdown(), end="")
