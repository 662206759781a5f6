"""Reading configs: what is accepted, what is refused and in which words."""

import re
from pathlib import Path

import pytest
import yaml

from recipes.config_file import all_keys, apply_overrides, differences, load_config, parse_config, read_yaml, to_yaml
from recipes.errors import UserError

_ALL = sorted((Path(__file__).parents[1] / "recipes" / "configs").glob("*.yaml"))
# Those of sweeps have a test of their own.
CONFIGS = [path for path in _ALL if not path.name.startswith("sweep_")]
LOCAL = next(path for path in CONFIGS if path.name == "local.yaml")


def minimal(**blocks):
    return {
        "run": {"name": "r"},
        "model": {"shape": {}},
        "data": {"source": "pydoc"},
        "schedule": {"peak_lr": 1e-3, "total_steps": 10},
    } | blocks


@pytest.fixture
def write(tmp_path):
    def write_yaml(text: str) -> Path:
        path = tmp_path / "c.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_yaml


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_is_valid_and_round_trips(path):
    config = load_config(path)
    assert parse_config(read_yaml(path)) == config
    import yaml

    assert parse_config(yaml.safe_load(to_yaml(config))) == config


def test_shipped_configs_are_found():
    assert "local.yaml" in [path.name for path in CONFIGS]


def test_every_key_has_a_description():
    assert len(all_keys()) > 60
    assert [key for key, text in all_keys().items() if len(text) < 10] == []


def test_overrides_are_read_as_yaml(tmp_path):
    config = load_config(
        LOCAL, ["scaling.num_workers=4", "deepspeed.extra={wall_clock_breakdown: true}", "optimizer.eps=1e-6"]
    )
    assert config.scaling.num_workers == 4
    assert config.deepspeed.extra == {"wall_clock_breakdown": True}
    assert config.optimizer.eps == 1e-6


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("scaling.num_worker=4", "unknown key 'scaling.num_worker', did you mean 'scaling.num_workers'?"),
        ("zero_stage=3", "unknown key 'zero_stage', did you mean 'deepspeed.zero_stage'?"),
        ("scaling.num_workers=two", "scaling.num_workers is 'two': input should be a valid integer"),
        ("scaling.num_workers=0", "scaling.num_workers is 0: input should be greater than 0"),
        ("scaling.num_workers=true", "scaling.num_workers is True: a number is expected, not true or false"),
        ("training.precision=fp16", "training.precision is 'fp16': fp16 overflows in T5's feed-forward layers"),
        ("deepspeed.zero_stage=4", "deepspeed.zero_stage is 4: input should be 0, 1, 2 or 3"),
        ("data.on_bad_row=ignore", "data.on_bad_row is 'ignore': input should be 'refuse' or 'skip'"),
        ("model.folder=x", "model: give exactly one of shape, folder, hub; given: shape, folder"),
        ("deepspeed={zero_stage: 0, offload: optimizer}", "deepspeed: offload: optimizer needs zero_stage 1 or more"),
        ("run.name=a/b", "run.name is 'a/b': string should match pattern"),
        ("optimizer.betas=[0.9, 1.0]", "optimizer: betas [0.9, 1.0] must each be at least 0 and below 1"),
        (
            "optimizer={name: adafacto}",
            "optimizer.name is 'adafacto': input should be 'adamw', 'adamw_rms' or 'adafactor'",
        ),
        (
            "optimizer={name: adafactor, betas: [0.9, 0.98]}",
            "optimizer: betas has no effect with name: adafactor (it belongs to adamw, adamw_rms)",
        ),
        ("optimizer.eps2=0.1", "optimizer: eps2 has no effect with name: adamw (it belongs to adafactor)"),
        ("optimizer={name: adafactor, decay_rate: 0}", "optimizer.decay_rate is 0: input should be greater than 0"),
        (
            "model={folder: m}",
            "a model from a folder or the hub needs its own token ids: set data.tokenizer to {kind: fol",
        ),
        ("scaling={min_workers: 1}", "scaling: min_workers and max_workers go together"),
        (
            "scaling={min_workers: 1, max_workers: 2}",
            "scaling: min_workers needs max_failures above 0: a node that dies counts as a failure",
        ),
        (
            "scaling={min_workers: 3, max_workers: 2, max_failures: 1}",
            "scaling: min_workers 3 is above max_workers 2",
        ),
        ("training.examples_per_update=1", "training.examples_per_update is 1, fewer than the 2 workers"),
        ("training.clip_norm=.nan", "training.clip_norm is nan: input should be a finite number"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(override, line):
    with pytest.raises(UserError) as caught:
        load_config(LOCAL, [override])
    assert "\n" not in str(caught.value)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["deepspeed.offload=optimizer"], "deepspeed.offload works with optimizer.name adamw only, not adamw_rms"),
        (
            ["deepspeed.extra={zero_optimization: {offload_optimizer: {device: cpu}}}"],
            "deepspeed.extra.zero_optimization.offload_optimizer works with optimizer.name adamw only",
        ),
    ],
)
def test_only_adamw_is_offloaded(overrides, line):
    load_config(LOCAL, overrides)
    with pytest.raises(UserError) as caught:
        load_config(LOCAL, [*overrides, "optimizer={name: adamw_rms}"])
    assert "\n" not in str(caught.value)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("adamw", {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}),
        ("adamw_rms", {"betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0, "min_rms": 1e-3}),
        (
            "adafactor",
            {"decay_rate": 0.8, "clip_threshold": 1.0, "eps1": 1e-30, "eps2": 1e-3, "weight_decay": 0.0},
        ),
    ],
)
def test_every_optimizer_has_its_own_defaults_and_they_are_written_down(name, own):
    config = load_config(LOCAL, [f"optimizer={{name: {name}}}"])
    written = yaml.safe_load(to_yaml(config))
    assert {key: value for key, value in config.optimizer.model_dump().items() if value is not None} == {
        "name": name,
        "embedding_lr_ratio": 1.0,
        **own,
    }
    assert parse_config(written) == config


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("scaling.num_workers", "override 'scaling.num_workers': write key=value"),
        ("=3", "override '=3': write key=value"),
        ("run.name.x=3", "override 'run.name.x=3': run.name is a value, not a block"),
        ("run.seed=[1", "override 'run.seed=[1': '[1' is not a YAML value"),
    ],
)
def test_a_malformed_override_is_refused(override, line):
    with pytest.raises(UserError, match="override") as caught:
        load_config(LOCAL, [override])
    assert str(caught.value).startswith(line)


def test_several_problems_are_told_at_once():
    with pytest.raises(UserError) as caught:
        parse_config(minimal(scaling={"num_workers": -1}, training={"precision": "fp8"}))
    assert [line.split(" is ")[0] for line in str(caught.value).splitlines()] == [
        "config: training.precision",
        "config: scaling.num_workers",
    ]


def test_a_missing_key_is_explained():
    content = minimal()
    del content["run"]["name"]
    with pytest.raises(UserError, match=r"^config: run.name is missing: Name of the run"):
        parse_config(content)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("run: [1", "not valid YAML"),
        ("- 1\n- 2\n", "a config is a mapping with the blocks run, model, data"),
        ("", "a config is a mapping"),
        ("run: {name: a}\nrun: {name: b}\n", "line 2: not valid YAML: key 'run' is given twice"),
    ],
)
def test_a_file_that_is_no_config_is_refused(write, text, line):
    with pytest.raises(UserError) as caught:
        load_config(write(text))
    assert "\n" not in str(caught.value)
    assert line in str(caught.value)


def test_a_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "local.yaml").write_text("{}")
    with pytest.raises(UserError, match=r"lokal.yaml: no such config file, did you mean '.*local.yaml'\?"):
        load_config(tmp_path / "lokal.yaml")


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"run: {name: \xe4}\n")
    with pytest.raises(UserError, match="not UTF-8 text \\(byte 12\\)"):
        load_config(path)


def test_differences_name_dotted_fields():
    old = parse_config(minimal())
    new = parse_config(minimal(training={"clip_norm": 2.0}, schedule={"peak_lr": 1e-3, "total_steps": 20}))
    assert differences(old, new) == {"training.clip_norm": (1.0, 2.0), "schedule.total_steps": (10, 20)}


def test_the_reference_in_docs_is_up_to_date():
    from recipes.config_reference import markdown

    page = Path(__file__).parents[1] / "docs" / "config.md"
    assert page.read_text(encoding="utf-8") == markdown()
    assert all(f"`{key}`" in markdown() for key in all_keys() if "." in key)


@pytest.mark.parametrize("prefix", ["summarize: ", "translate English to German: ", "<deu>: "])
def test_a_prefix_on_the_command_line_is_text(prefix):
    content = apply_overrides(minimal(), [f"data.prefix={prefix}"])
    assert parse_config(content).data.prefix == prefix
    assert apply_overrides({}, ["a={b: 1}"]) == {"a": {"b": 1}}


_MIXED = "data={tasks: [{name: turn, source: a}, {name: fill, source: b, objective: {kind: span_corruption}}, {name: more, source: c}]}"


@pytest.mark.parametrize(
    ("best", "words"),
    [
        ("{metric: eval_bleu/turn}", None),
        ("{metric: eval_loss/fill}", None),
        ("{metric: eval_bleu/fill}", "evaluation.best.metric: nothing measures 'eval_bleu/fill'"),
        ("{metric: eval_bleu/trun}", "nothing measures 'eval_bleu/trun', did you mean 'eval_bleu/turn'?"),
        ("{metric: eval_chrf/turn}", "'eval_chrf/turn' is not measured: add chrf to evaluation.metrics"),
        ("{metric: eval_perplexity/turn}", "nothing measures 'eval_perplexity/turn'"),
    ],
)
def test_the_best_of_one_tasks_metric(best, words):
    overrides = (_MIXED, "evaluation.metrics=[bleu, perplexity]", f"evaluation.best={best}")
    if words is None:
        found = load_config(LOCAL, overrides).evaluation.best
        assert found.lower_is_better == found.metric.startswith("eval_loss")
    else:
        with pytest.raises(UserError, match=re.escape(words)):
            load_config(LOCAL, overrides)
