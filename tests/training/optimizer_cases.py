"""Updates of each optimizer on several ranks at every ZeRO stage, against one process that holds whole parameters.

    python optimizer_cases.py WORLD NAMES [STAGE PRECISION BLOCKS]

Prints, as JSON, for each optimizer (NAMES, with commas) and stage (0 to 3 in fp32, or STAGE in PRECISION with BLOCKS, JSON,
over the config): how far the weights are off, of the parameter where that is
worst, as a part of its norm (`off`) and as a part of what the updates changed in it (`off_of_change`); the bytes of
optimizer state of this rank; the segments that end inside a row; and how far the tensors that DeepSpeed masters are
from the elements that the layout says they hold.
"""

import json
import sys

import torch
import torch.distributed as dist
import transformers

from recipes.config_file import parse_config
from recipes.training.model import build_model, group_lr_ratios, parameter_groups
from recipes.training.update import run_update, summed_loss
from tests.training import ranks, test_engine

UPDATES, STAGES = 3, (0, 1, 2, 3)
SIZES = ((3, 7, 5), (2, 5, 3), (1, 6, 6), (2, 4, 5), (2, 3, 3), (1, 8, 2))
# Widths that no number of ranks divides: flat partitions end inside rows.
SHAPE = {"d_model": 15, "d_kv": 5, "d_ff": 23, "num_layers": 1, "num_heads": 3, "dropout_rate": 0.0}
SETTINGS = {
    "adamw": {"weight_decay": 0.3},
    "adamw_rms": {"betas": [0.8, 0.95], "weight_decay": 0.3, "embedding_lr_ratio": 2.0},
    "adafactor": {"weight_decay": 0.3, "clip_threshold": 0.7, "embedding_lr_ratio": 2.0},
}


def main(world, names, stages=STAGES, precision="fp32", changes=None):
    ranks.start(_rank, world, world, names, stages, precision, changes)


def make_config(name, stage, precision, clip_norm=0.5, changes=None):
    config = test_engine.make_config(stage, precision, clip_norm=clip_norm, optimizer={"name": name, **SETTINGS[name]})
    content = config.model_dump(mode="json")
    content["model"]["shape"] |= SHAPE
    for block, values in (changes or {}).items():
        content[block] |= values
    # So large that what the updates change stands out of what fp32 rounds off.
    content["schedule"]["peak_lr"] = 0.1
    return parse_config(content)


def _rank(rank, world, names, stages, precision, changes):
    results = [_one(rank, world, name, stage, precision, changes) for name in names for stage in stages]
    if rank == 0:
        print("RESULT" + json.dumps(results), flush=True)


def _one(rank, world, name, stage, precision, changes):
    config = make_config(name, stage, precision, changes=changes)
    engine, schedule = test_engine.make_engine(config)
    before = test_engine._weights(engine)
    misplaced = 0.0 if name == "adamw" else _misplaced(engine, before)
    for k in range(UPDATES):
        batches, num_tokens = test_engine.micro_batches(k, SIZES)
        run_update(engine, batches[rank::world], num_tokens)
    after, expected = test_engine._weights(engine), _by_one_process(config, schedule)
    off = {each: float((after[each] - expected[each]).norm()) for each in after}
    changed = {each: float((expected[each] - before[each]).norm()) for each in after}
    return {
        "name": name,
        "stage": stage,
        "off": max(off[each] / float(expected[each].norm()) for each in after),
        "off_of_change": max(off[each] / change for each, change in changed.items() if change),
        "state_bytes": _state_bytes(engine),
        "cut_rows": _over_ranks(_num_cut_rows(engine)),
        "misplaced": _over_ranks(misplaced),
    }


def _over_ranks(value):
    total = torch.tensor(float(value))
    dist.all_reduce(total)
    return float(total)


def _by_one_process(config, schedule):
    """The weights after the same updates of a plain torch loop over the whole batches."""
    model = build_model(config.model, test_engine.VOCAB, config.run.seed)
    groups = parameter_groups(model, config.optimizer, schedule.peak_lr)
    optimizer = _plain_optimizer(config.optimizer, groups)
    for k in range(UPDATES):
        for group, ratio in zip(optimizer.param_groups, group_lr_ratios(config.optimizer, config.model), strict=True):
            group["lr"] = schedule.lr(k) * ratio
        batches, num_tokens = test_engine.micro_batches(k, SIZES)
        optimizer.zero_grad()
        (sum(summed_loss(model, batch) for batch in batches) / num_tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.training.clip_norm)
        optimizer.step()
    return {name: p.detach() for name, p in model.named_parameters()}


def _plain_optimizer(block, groups):
    if block.name == "adamw":
        return torch.optim.AdamW(groups, betas=block.betas, eps=block.eps)
    if block.name == "adafactor":
        return transformers.Adafactor(
            groups,
            lr=0.0,
            eps=(block.eps1, block.eps2),
            clip_threshold=block.clip_threshold,
            decay_rate=-block.decay_rate,
            scale_parameter=True,
            relative_step=False,
            warmup_init=False,
        )
    return PlainAdamWScale(groups, block)


class PlainAdamWScale:
    """arXiv 2309.02373's optimizer on whole parameters, from its formula alone."""

    def __init__(self, groups, block):
        self.param_groups, self.block, self.step_count = groups, block, 0
        self.moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for group in groups for p in group["params"]}

    def zero_grad(self):
        for p in self.moments:
            p.grad = None

    @torch.no_grad()
    def step(self):
        self.step_count += 1
        (beta1, beta2), t = self.block.betas, self.step_count
        for group in self.param_groups:
            for p in group["params"]:
                m, v = self.moments[p]
                m.copy_(beta1 * m + (1 - beta1) * p.grad)
                v.copy_(beta2 * v + (1 - beta2) * p.grad**2)
                size = max(self.block.min_rms, float(p.pow(2).mean().sqrt()))
                rate = group["lr"] * size * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
                p -= rate * m / (v.sqrt() + self.block.eps)
                p -= group["lr"] * group["weight_decay"] * p


def _misplaced(engine, weights):
    """The largest difference between a master's element and the parameter's element that it is said to be."""
    layouts, worst = engine.basic_optimizer.layouts, 0.0
    names = _names_by_master(engine)
    for master, layout in layouts.items():
        for segment in layout.segments:
            whole = weights[names[master][segment.parameter]].flatten().float()
            held = whole[segment.first : segment.first + segment.length]
            worst = max(worst, float((segment.of(master.detach()) - held).abs().max()))
    return worst


def _names_by_master(engine):
    """For each flat tensor the names of the parameters in it, in order."""
    layouts = list(engine.basic_optimizer.layouts)
    wrapped = engine.optimizer
    groups = next(
        (getattr(wrapped, k) for k in ("bit16_groups", "bf16_groups", "fp16_groups") if hasattr(wrapped, k)), []
    )
    return {
        master: [engine.param_names[p] for p in group]
        for master, group in zip(layouts, groups if layouts else [], strict=True)
    }


def _num_cut_rows(engine):
    layouts = getattr(engine.basic_optimizer, "layouts", {}).values()
    return sum(
        len(layout.shapes[s.parameter]) == 2 and (s.first + s.length) % layout.shapes[s.parameter][1] != 0
        for layout in layouts
        for s in layout.segments
    )


def _state_bytes(engine):
    """Of moments, on this rank."""
    state = engine.basic_optimizer.state.values()
    return sum(v.numel() * v.element_size() for each in state for key, v in each.items() if key != "step")


if __name__ == "__main__":
    world, names, *rest = sys.argv[1:]
    chosen = ([int(rest[0])], rest[1], json.loads(rest[2])) if rest else ()
    main(int(world), names.split(","), *chosen)
