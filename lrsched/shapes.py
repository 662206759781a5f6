"""Finding a decay shape by its name and reading it: the native ones and those of the dialects."""

from __future__ import annotations

from typing import Any

from lrsched import fields
from lrsched.decays import DECAYS, Decay
from lrsched.errors import ScheduleError, unknown
from lrsched.lengths import Units

# Modules that hold the shapes named "<library>.<scheduler>"; imported when one is asked for.
DIALECTS = ("torch", "transformers", "deepspeed")


def dialect_shapes(library: str) -> dict[str, type[Decay]]:
    """The shapes of one of the ``DIALECTS`` by their full name."""
    import importlib

    module = importlib.import_module(f"lrsched.dialects.{library}_shapes")
    shapes: dict[str, type[Decay]] = module.SHAPES
    return shapes


def find_shape(shape: Any) -> type[Decay]:
    """The class of a shape; ScheduleError with the nearest known one if there is none."""
    known = DECAYS
    if isinstance(shape, str) and shape.partition(".")[0] in DIALECTS and "." in shape:
        known = dialect_shapes(shape.partition(".")[0])
    if not isinstance(shape, str) or shape not in known:
        raise ScheduleError("decay.shape", *unknown("shape", shape, known))
    return known[shape]


def read_decay(value: Any, units: Units) -> Decay:
    """A decay from its YAML form."""
    mapping = fields.as_mapping(value, "decay")
    shape = mapping.get("shape")
    if shape is None:
        raise ScheduleError("decay.shape", "is missing", f"known: {', '.join(DECAYS)}")
    cls = find_shape(shape)
    if "ends_at_min" in mapping and not hasattr(cls, "ends_at_min"):
        having = ", ".join(name for name, one in DECAYS.items() if hasattr(one, "ends_at_min"))
        raise ScheduleError("decay.ends_at_min", f"does not apply to shape {shape}", f"only to {having}; leave it out")
    return fields.read_section(cls, mapping, units, skip=("shape",))
