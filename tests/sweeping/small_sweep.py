"""A sweep that takes seconds: six trials of 16 updates of a tiny byte-level T5."""

from pathlib import Path

SPACE = """
space:
  schedule:
    - {family: cosine, t_max: {uniform: ["50% of decay", "100% of decay"]}, eta_min: {loguniform: [1.0e-6, 1.0e-4]}}
    - {family: step, step_size: {randint: [3, 8]}, gamma: 0.5}
    - {family: wsd, decay_steps: 5}
  schedule.peak_lr: {loguniform: [1.0e-3, 3.0e-2]}
"""


def small_sweep(data: Path, storage: Path, *overrides: str, space: str = SPACE) -> list[str]:
    """Arguments of a `recipes.sweep` command."""
    storage.mkdir(parents=True, exist_ok=True)
    config = storage / "sweep.yaml"
    config.write_text(
        f"""
sweep: {{name: small, storage_path: {storage}, seed: 3, num_trials: 6, search: random, resume: auto}}
base:
  model: {{shape: {{d_model: 32, d_kv: 8, d_ff: 64, num_layers: 1, num_heads: 4, dropout_rate: 0.1}}}}
  data: {{source: {data}, tokenizer: {{kind: bytes}}, max_source_tokens: 64, max_target_tokens: 64, held_out_ratio: 0.1}}
  schedule: {{peak_lr: 1.0e-2, total_steps: 16, warmup: {{steps: 3}}}}
  training: {{examples_per_update: 16, micro_batch_tokens: 400, eval_every_steps: 16, log_every_steps: 1, num_samples: 0, precision: fp32}}
  checkpoint: {{every_steps: 4}}
{space}
scheduler: {{kind: asha, grace_steps: 4, reduction_factor: 2, rule: strict}}
scoring: {{method: annealed, branch_ratio: 0.25}}
final: {{top_k: 2, num_seeds: 2}}
""",
        encoding="utf-8",
    )
    return [str(config), *overrides]
