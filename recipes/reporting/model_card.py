"""The exported model's README.md: what the Hub reads of it, and what its users ask.

From the run's files alone. Paths and URIs are shown by their last name, without folders and credentials: a model card is
made to be passed around.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from lrsched import Schedule, ScheduleError
from recipes.config.evaluation import TEXT_METRICS
from recipes.reporting import page_parts as parts
from recipes.reporting.metrics import metric_fields
from recipes.reporting.run_files import RunFiles, read_run
from recipes.storage import Storage

NAME = "README.md"
_TASK = "text2text-generation"
# The Hub's names of metrics.
_HUB_METRICS = {
    "eval_bleu": "bleu",
    "eval_chrf": "chrf",
    "eval_rouge1": "rouge",
    "eval_rouge2": "rouge",
    "eval_rougeL": "rouge",
    "eval_exact_match": "exact_match",
    "eval_perplexity": "perplexity",
}
_PACKAGES = ("torch", "deepspeed", "transformers", "ray", "tokenizers")


def write_card(run_folder: Storage, place: Storage, step: int, precision: str | None = None) -> None:
    """Put the card of the run's model after ``step`` updates beside the model in ``place``."""
    place.write_text(NAME, model_card(read_run(run_folder), step, precision))


def model_card(run: RunFiles, step: int, precision: str | None = None) -> str:
    """YAML header and Markdown. precision: of the weights; None: what the run was trained in."""
    evaluated = next((record for record in reversed(run.metrics.eval) if record["step"] == step), {})
    sections = [
        f"# {run.name}",
        _summary(run, step),
        _use(run),
        "## Data\n\n" + _list(_data(run)),
        "## Learning rate\n\n" + _schedule(run),
        "## Results\n\n" + _results(run, step, evaluated),
        "## Training\n\n" + _list(_training(run, step, precision)),
    ]
    header = yaml.safe_dump(_header(run, evaluated), sort_keys=False, allow_unicode=True)
    return f"---\n{header}---\n\n" + "\n\n".join(sections) + "\n"


def _header(run: RunFiles, evaluated: dict[str, Any]) -> dict[str, Any]:
    header: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": _TASK,
        "tags": ["t5", _TASK, "deepspeed", "ray"],
    }
    if run.setting("model.hub"):
        header["base_model"] = run.setting("model.hub")
    known = [name for name in metric_fields(evaluated) if name in _HUB_METRICS and parts.is_number(evaluated[name])]
    if known:
        header["metrics"] = sorted({_HUB_METRICS[name] for name in known})
        values = [
            {"type": _HUB_METRICS[name], "name": name.removeprefix("eval_"), "value": round(evaluated[name], 4)}
            for name in known
        ]
        data = {"type": "held-out", "name": f"held-out examples of {_last_name(_held_out_source(run))}"}
        header["model-index"] = [
            {"name": run.name, "results": [{"task": {"type": _TASK}, "dataset": data, "metrics": values}]}
        ]
    return header


def _summary(run: RunFiles, step: int) -> str:
    size = run.summary.get("num_parameters")
    words = f"A T5 of {parts.large(size)} parameters" if parts.is_number(size) else "A T5"
    if run.setting("model.shape") is not None:
        words += ", trained from scratch"
    else:
        words += f", fine-tuned from {_code(run.setting('model.hub') or _last_name(run.setting('model.folder')))}"
    return f"{words} for {step:,} updates with DeepSpeed on Ray. It takes a text and writes a text."


def _use(run: RunFiles) -> str:
    example = json.dumps(f"{run.setting('data.prefix') or ''}your text", ensure_ascii=False)
    return f"""## Use

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

name = "."  # this folder, or the model's name on the Hub
tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModelForSeq2SeqLM.from_pretrained(name)
output = model.generate(**tokenizer({example}, return_tensors="pt"))
print(tokenizer.decode(output[0], skip_special_tokens=True))
```"""


def _data(run: RunFiles) -> list[tuple[str, Any]]:
    numbers = run.summary.get("data", {})
    tokenizer = run.setting("data.tokenizer") or {}
    kind = {"unigram": "Unigram, trained on the training texts", "bytes": "bytes (ByT5's)"}.get(tokenizer.get("kind"))
    prefix = run.setting("data.prefix")
    held_out = run.setting("data.eval_source")
    if run.setting("data.tasks"):
        return [*_tasks(run), ("tokenizer", kind or _code(_last_name(tokenizer.get("path"))))]
    objective = run.setting("data.objective.kind") or "seq2seq"
    return [
        ("objective", objective),
        ("source", _code(_last_name(run.setting("data.source")))),
        ("columns", f"{_code(run.setting('data.source_column'))} to {_code(run.setting('data.target_column'))}"),
        ("training examples", parts.count(numbers.get("training_examples"))),
        (
            "held-out examples",
            parts.count(numbers.get("held_out_examples"))
            + (f", from {_code(_last_name(held_out))}" if held_out else ", split off by a hash of the source text"),
        ),
        (
            "training tokens",
            f"{parts.count(numbers.get('training_source_tokens'))} of sources, "
            f"{parts.count(numbers.get('training_target_tokens'))} of targets",
        ),
        ("task prefix", _code(json.dumps(prefix, ensure_ascii=False)) if prefix else "none"),
        ("longest source and target", f"{run.setting('data.max_source_tokens')} and {run.setting('data.max_target_tokens')} tokens"),
        ("longer texts", "cut off" if run.setting("data.on_too_long") == "truncate" else "none"),
        ("tokenizer", kind or _code(_last_name(tokenizer.get("path")))),
    ]  # fmt: skip


def _tasks(run: RunFiles) -> list[tuple[str, Any]]:
    """Of a mixture: each task's source, objective, prefix, and part of the examples."""
    numbers = {task.get("name"): task for task in run.summary.get("tasks") or ()}
    rows = []
    for task in run.setting("data.tasks"):
        known = numbers.get(task.get("name"), {})
        words = f"{_code(_last_name(task.get('source')))}, {task.get('objective', {}).get('kind', 'seq2seq')}"
        if task.get("prefix"):
            words += f", prefix {_code(json.dumps(task['prefix'], ensure_ascii=False))}"
        if parts.is_number(known.get("rate")):
            words += f", {known['rate']:.1%} of the examples, {known['epochs']:.3g} epochs"
        rows.append((f"task {task.get('name')}", words))
    return rows


def _schedule(run: RunFiles) -> str:
    try:
        sentence = Schedule.from_dict(run.setting("schedule") or {}, where="schedule").describe()
    except ScheduleError:
        sentence = str(run.summary.get("schedule_sentence", "Not known."))
    ratio = run.setting("optimizer.embedding_lr_ratio")
    if ratio not in (None, 1, 1.0):
        sentence += f" Embedding, norms and biases learn at {ratio:g} times that."
    return sentence


def _results(run: RunFiles, step: int, evaluated: dict[str, Any]) -> str:
    if not evaluated:
        return f"Not evaluated at update {step:,}."
    rows = [("loss (nats per target token)", evaluated["eval_loss"])]
    rows += [(name.removeprefix("eval_").replace("_", " "), evaluated[name]) for name in metric_fields(evaluated)]
    unigram = run.summary.get("unigram_loss")
    if parts.is_number(unigram):
        rows.append(("for comparison: loss of a unigram model of the same targets", unigram))
    lines = [f"On held-out examples, after update {step:,}:", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_number(value)} |" for name, value in rows]
    if any(f"eval_{name}" in evaluated or name == "rouge" for name in TEXT_METRICS) and "eval_generated" in evaluated:
        lines += ["", f"Generated text: {evaluated['eval_generated']:,} examples, {_generation(run)}."]
    for name, signature in run.summary.get("metric_signatures", {}).items():
        lines += ["", f"{name}: `{signature}`"]
    return "\n".join(lines)


def _generation(run: RunFiles) -> str:
    beams = run.setting("evaluation.generation.num_beams") or 1
    return "greedy decoding" if beams == 1 else f"beam search with {beams} beams"


def _training(run: RunFiles, step: int, precision: str | None) -> list[tuple[str, Any]]:
    betas = run.setting("optimizer.betas") or []
    packages = run.environment.get("packages", {})
    trained_in = run.summary.get("precision") or run.setting("training.precision")
    rows = [
        ("updates", f"{step:,} of {parts.count(run.total_updates)}"),
        ("examples per update", parts.count(run.setting("training.examples_per_update"))),
        (
            "optimizer",
            f"{run.setting('optimizer.name') or 'AdamW'}, betas {', '.join(map(str, betas))}, weight decay "
            f"{run.setting('optimizer.weight_decay')}, gradients clipped at norm {run.setting('training.clip_norm')}",
        ),
        ("seed", run.setting("run.seed")),
        ("workers", parts.count(run.summary.get("num_workers", run.setting("scaling.num_workers")))),
        ("ZeRO stage", run.setting("deepspeed.zero_stage")),
        ("precision", trained_in if precision in (None, trained_in) else f"{trained_in}; these weights: {precision}"),
    ]
    if parts.is_number(run.summary.get("wall_s")):
        rows.append(("time", parts.duration(run.summary["wall_s"])))
    versions = ", ".join(f"{name} {packages[name]}" for name in _PACKAGES if packages.get(name))
    if versions:
        rows.append(("versions", f"Python {run.environment.get('python')}, {versions}"))
    if run.environment.get("git_commit"):
        rows.append(("commit of the recipe", _code(run.environment["git_commit"])))
    if run.environment.get("started"):
        rows.append(("started", run.environment["started"]))
    return rows


def _list(rows: list[tuple[str, Any]]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in rows)


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else parts.count(value)


def _held_out_source(run: RunFiles) -> str | None:
    return run.setting("data.eval_source") or run.setting("data.source")


def _last_name(place: Any) -> str:
    """Of a path or URI, without its folders and whatever key and secret stand in it."""
    return str(place or "").rstrip("/").rsplit("/", 1)[-1] or "unknown"


def _code(value: Any) -> str:
    """As a code span, whatever is in it."""
    plain = " ".join(str(value).splitlines())
    ticks = "`" * (1 + max((len(run) for run in "".join(c if c == "`" else " " for c in plain).split()), default=0))
    return f"{ticks}{plain}{ticks}" if len(ticks) == 1 else f"{ticks} {plain} {ticks}"
