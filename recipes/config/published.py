"""The sizes of the published T5 families, as numbers of a `ShapeBlock`.

T5: Raffel et al., arXiv 1910.10683, section 3.7; v1.1: released_checkpoints.md of
google-research/text-to-text-transfer-transformer; mT5: Xue et al., arXiv 2010.11934; ByT5: arXiv 2105.13626, table 1;
CodeT5: arXiv 2109.00859, and its model cards for large.
"""

from __future__ import annotations

from typing import Any


def _sizes(gated: bool, tied: bool, **rows: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    names = ("d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads")
    kind = {"feed_forward_proj": "gated-gelu" if gated else "relu", "tie_word_embeddings": tied}
    return {size: dict(zip(names, row, strict=True)) | kind for size, row in rows.items()}


_T5 = _sizes(
    False, True,
    small=(512, 64, 2048, 6, 6, 8), base=(768, 64, 3072, 12, 12, 12), large=(1024, 64, 4096, 24, 24, 16),
    **{"3b": (1024, 128, 16384, 24, 24, 32), "11b": (1024, 128, 65536, 24, 24, 128)},
)  # fmt: skip
_V1_1 = _sizes(
    True, False,
    small=(512, 64, 1024, 8, 8, 6), base=(768, 64, 2048, 12, 12, 12), large=(1024, 64, 2816, 24, 24, 16),
    xl=(2048, 64, 5120, 24, 24, 32), xxl=(4096, 64, 10240, 24, 24, 64),
)  # fmt: skip
_BYT5 = _sizes(
    True, False,
    small=(1472, 64, 3584, 12, 4, 6), base=(1536, 64, 3968, 18, 6, 12), large=(1536, 64, 3840, 36, 12, 16),
    xl=(2560, 64, 6720, 36, 12, 32), xxl=(4672, 64, 12352, 36, 12, 64),
)  # fmt: skip
_CODET5 = {size: _T5[size] for size in ("small", "base", "large")}
_FAMILIES = {"t5": _T5, "t5-v1_1": _V1_1, "mt5": _V1_1, "byt5": _BYT5, "codet5": _CODET5}

# Size by name, such as "t5-v1_1-base"; without a vocabulary, which is the tokenizer's.
SIZES = {f"{family}-{size}": numbers for family, sizes in _FAMILIES.items() for size, numbers in sizes.items()}
# Rows of the published embeddings (config.json), most of them rounded up to a multiple of 128.
_ROWS = {"t5": 32128, "t5-v1_1": 32128, "flan-t5": 32128, "mt5": 250112, "byt5": 384, "codet5": 32100}
_OWNERS = {"t5": ("", "google-t5/"), "codet5": ("Salesforce/",)}

# model_type of a config.json that this recipe trains: mT5 and ByT5 say mt5.
MODEL_TYPES = ("t5", "mt5")

# Name on the Hub -> name in SIZES, rows of the embedding.
CHECKPOINTS = {
    f"{owner}{family}-{size}": (f"{shape}-{size}", _ROWS[family])
    for family, shape in [*((name, name) for name in _FAMILIES), ("flan-t5", "t5-v1_1")]
    for size in _FAMILIES[shape]
    for owner in _OWNERS.get(family, ("google/",))
}
