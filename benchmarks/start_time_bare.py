"""One update of the recipe's model under DeepSpeed alone: what `start_time.py` compares the recipe's start with.

torchrun --nproc_per_node N benchmarks/start_time_bare.py RUN ANSWER.json START, with a finished RUN of the recipe, whose model,
DeepSpeed config and token cache it takes, and the moment START at which torchrun was called.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

ROWS = 32


def micro_batch(tokens: Path, rank: int, world_size: int) -> dict[str, Any]:
    """This rank's part of the cache's first examples, padded with 0 and -100."""
    import pyarrow as pa
    import torch

    with pa.memory_map(str(tokens)) as file:
        examples = pa.ipc.open_file(file).get_batch(0).slice(0, ROWS).to_pylist()[rank::world_size]
    sides = [[torch.tensor(example[side]) for example in examples] for side in ("source", "target")]
    ids, labels = (
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
        for rows, value in zip(sides, (0, -100), strict=True)
    )
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


def main(run: str, answer: str, start: str) -> None:
    began = time.time()
    import deepspeed
    import torch
    import torch.nn.functional as F
    from deepspeed.ops import __compatible_ops__
    from transformers import T5Config, T5ForConditionalGeneration

    times = {"torchrun": began - float(start), "imports": time.time() - began}
    # As in the recipe: an op that training never calls, compiled for a minute.
    __compatible_ops__["deepspeed_shm_comm"] = False
    torch.set_num_threads(1)
    began = time.time()
    deepspeed.init_distributed("gloo")
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    torch.manual_seed(1)
    model = T5ForConditionalGeneration(T5Config.from_pretrained(f"{run}/export")).train()
    settings = json.loads(Path(run, "ds_config.json").read_text())
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=settings)
    times["engine"] = time.time() - began
    began = time.time()
    tokens = next(Path(run).parent.glob("token_cache/*/train.arrow"))
    batch = micro_batch(tokens, rank, world_size)
    labels = batch.pop("labels")
    logits = engine(**batch, decoder_input_ids=engine.module._shift_right(labels), use_cache=False).logits
    engine.backward(F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100))
    engine.step()
    times["first update"] = time.time() - began
    if rank == 0:
        Path(f"{answer}.part").write_text(json.dumps(times))
        Path(f"{answer}.part").rename(answer)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
