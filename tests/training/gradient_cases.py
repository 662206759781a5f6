"""The gradient of one global batch, by number of workers, micro-batch budget and ZeRO stage, against one in fp64.

    python gradient_cases.py WORLD FOLDER

FOLDER holds pairs.jsonl. Prints, as JSON, for each stage and budget: the loss, the number of micro-batches of one rank, and
the gradient's distance from plain torch's in fp64 over the whole batch at once, as a part of its norm.
"""

import copy
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from recipes.config_file import load_config
from recipes.data import batches as tensors
from recipes.data.batches import pack, pad
from recipes.data.cache import open_data
from recipes.data.plan import batch_plan
from recipes.launching.preflight import prepare
from recipes.layers import linear
from recipes.training.engine import start_engine
from recipes.training.model import build_model, parameter_groups
from recipes.training.update import run_update
from tests.conftest import small_run
from tests.training import ranks
from tests.training.test_engine import _weights

STAGES, BUDGETS, UPDATE, TIMES = (0, 1, 2, 3), (150, 400, 3000), 1, 1e3


def main(world, folder):
    ranks.start(_rank, world, world, folder)


def prepared(folder, stage, budget, rank=0):
    file, *overrides = small_run(
        folder / "pairs.jsonl",
        folder / f"runs_{rank}",
        f"deepspeed.zero_stage={stage}",
        f"training.micro_batch_tokens={budget}",
        "model.shape.dropout_rate=0",
        "training.clip_norm=0",
        # So large an eps makes AdamW's first step a plain one, TIMES the gradient.
        "optimizer.eps=1e8",
        "optimizer.weight_decay=0",
        f"schedule={{peak_lr: {TIMES * 1e8}, total_steps: 8}}",
    )
    return prepare(load_config(file, overrides), lambda text: None, started_at=0.0)[0]


def _rank(rank, world, folder):
    tensors.SHORT = 4  # the examples are short, and more than one group is wanted
    results = [_one(rank, world, folder, stage, budget) for stage in STAGES for budget in BUDGETS]
    if rank == 0:
        print("RESULT" + json.dumps(results), flush=True)


def _one(rank, world, folder, stage, budget):
    # With the smallest budget all products are torch's, else all are oneDNN's, which are for larger models.
    linear.ENOUGH = sys.maxsize if budget == BUDGETS[0] else 0
    linear.mkl_is_slow = torch.backends.mkldnn.is_available
    job = prepared(folder, stage, budget, rank)
    data = open_data(job.data_folder)
    plan = batch_plan(job.config, data.train, world)
    model = build_model(job.config.model, data.vocab_size, job.config.run.seed)
    expected, expected_loss = _in_fp64(model, pad(data.train, plan.examples(UPDATE), data.pad_id))
    engine = start_engine(
        model, parameter_groups(model, job.config.optimizer, job.schedule.peak_lr), job.ds_config, job.schedule
    )
    batches = [pack(data.train, part, data.pad_id) for part in plan.micro_batches(UPDATE)[rank]]

    before = _weights(engine)
    update = run_update(engine, batches, plan.target_tokens(UPDATE))
    gradient = [(before[name] - after).double() / TIMES for name, after in _weights(engine).items()]
    loss = torch.as_tensor(float(update.loss_sum), dtype=torch.float64)
    dist.all_reduce(loss)
    difference = torch.stack([(mine - right).norm() for mine, right in zip(gradient, expected, strict=True)]).norm()
    return {
        "stage": stage,
        "budget": budget,
        "micro_batches": len(batches),
        "apart": any(len(batch.layout.source) > 1 for batch in batches),
        "loss": float(loss) / plan.target_tokens(UPDATE),
        "loss_fp64": expected_loss,
        "off": float(difference / torch.stack([right.norm() for right in expected]).norm()),
    }


def _in_fp64(model, batch):
    """The gradient and value of the mean loss over all target tokens, written without the recipe's update."""
    twin = copy.deepcopy(model).double()
    logits = twin(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, decoder_input_ids=batch.decoder_input_ids
    ).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-100)
    loss.backward()
    return [p.grad for p in twin.parameters()], float(loss.detach())


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
