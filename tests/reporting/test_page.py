import base64
import json
import math
import re

import pytest

from lrsched import Schedule
from recipes.config_file import parse_config, to_yaml
from recipes.reporting.metrics import MetricsWriter
from recipes.reporting.page import write_report
from recipes.storage import Storage

CONFIG = {
    "run": {"name": "first-run", "storage_path": "s3://key:secret@bucket/runs"},
    "model": {"shape": {"d_model": 32}},
    "data": {"source": "pydoc"},
    "schedule": {
        "peak_lr": 1e-3,
        "total_steps": 400,
        "warmup": {"steps": 40},
        "decay": {"shape": "cosine", "eta_min": 1e-5},
    },
    "scaling": {"num_workers": 2},
}
SUMMARY = {
    "state": "finished",
    "updates": 400,
    "total_updates": 400,
    "num_workers": 2,
    "zero_stage": 3,
    "precision": "bf16",
    "num_parameters": 1_534_211,
    "eval_loss": 3.0124,
    "unigram_loss": 5.7131,
    "unigram_loss_train_fit": 5.8021,
    "tokens_per_s": 5012.6,
    "padding_ratio": 0.0731,
    "wall_s": 312.4,
    "phases_s": {"start": 10.0, "updates": 80.0, "export": 10.0},
    "peak_memory_bytes": [2 * 2**30, 512 * 2**20],
    "data": {"pairs": 11234, "held_out": 561},
    "schedule_driver": "deepspeed",
    "schedule_sentence": "Linear warm-up, then cosine.",
}
HOSTILE = "</td></pre></title><script>alert('x')</script><img src=x onerror=\"y\">&'\x00\ud800"


def write_config(folder, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(parse_config(CONFIG | changes)))


def write_metrics(folder, last_step):
    schedule = Schedule.from_dict(CONFIG["schedule"])
    with MetricsWriter(Storage(folder), 0) as writer:
        for step in range(10, last_step + 1, 10):
            loss = 3 + 5 * math.exp(-step / 50)
            writer.write(
                {
                    "step": step,
                    "loss": loss,
                    "lr": schedule.lr(step - 1),
                    "tokens": 3000 * step,
                    "tokens_per_s": 4321.0,
                }
            )
            if step % 100 == 0:
                writer.write({"step": step, "eval_loss": loss + 0.1, "eval_tokens": 900, "eval_s": 1.5})


@pytest.fixture(scope="module")
def finished(tmp_path_factory, page_of):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    write_config(folder)
    write_metrics(folder, 400)
    (folder / "ds_config.json").write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    environment = {
        "command": ["python", "-m", "recipes.train", "a b.yaml"],
        "git_commit": "0123abcd",
        "packages": {"torch": "2.9.9", "ray": None},
        "machine": {"num_cpus": 2, "memory_bytes": 8 * 2**30},
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    samples = [
        {"source": f"source {i} " + "x" * 1000, "reference": f"reference {i}", "prediction": f"guess {i}"}
        for i in range(10)
    ]
    (folder / "samples.json").write_text(json.dumps(samples))
    return page_of(folder)


@pytest.mark.parametrize(
    "words",
    [
        "first-run Finished after 400 updates",
        "Held-out loss 3.012 nats per target token",
        "Unigram loss 5.713 nats per target token",
        "Difference 2.701 lower than the unigram loss",
        "Parameters 1.53 M",
        "Tokens per second 5,013",
        "Tokens seen 1.2 M",
        "Wall time 5 min 12 s",
        "Workers 2 ZeRO stage 3, bf16",
        "Linear warm-up, then cosine. Stepped by DeepSpeed's own scheduler.",
        "updates 80.0 80.0 %",
        "export 10.0 10.0 %",
        "padding share of the batches 7.3 %",
        "peak memory, worker 0 2.00 GiB",
        "peak memory, worker 1 512 MiB",
        "pairs 11,234 held out 561",
        "peak_lr: 0.001",
        '"zero_optimization"',
        "command python -m recipes.train 'a b.yaml'",
        "git commit 0123abcd",
        "packages torch 2.9.9 packages ray –",
        "machine memory 8.00 GiB",
    ],
)
def test_a_finished_run_tells(finished, words):
    assert words in finished.text


def test_sections_come_in_order(finished):
    titles = re.findall(r"<h2>(.*?)</h2>", finished.html)
    assert titles == [
        "Curves",
        "Samples",
        "Throughput and phases",
        "Data",
        "Settings",
        "Versions and machine",
    ]


def test_eight_samples_with_long_sources_shortened(finished):
    assert "guess 7" in finished.text
    assert "guess 8" not in finished.text
    assert "x" * 200 in finished.text
    assert "x" * 400 not in finished.text
    assert "more characters)" in finished.text


def test_evaluations_are_listed(finished):
    assert re.search(r"100\s+3\.777\s+1\.5", finished.html)


def test_the_page_needs_nothing_but_itself(finished):
    assert not {tag for tag, _ in finished.tags} & {"script", "link", "iframe", "object", "base", "form"}
    addresses = [
        value
        for _, attributes in finished.tags
        for name, value in attributes.items()
        if name in ("src", "srcset", "href", "action", "data", "poster", "background")
    ]
    assert len(addresses) == 8  # two pictures in four looks
    for address in addresses:
        assert address.startswith("data:image/png;base64,")
        assert base64.b64decode(address.split(",")[1]).startswith(b"\x89PNG\r\n\x1a\n")
    assert "url(" not in finished.html
    assert "@import" not in finished.html
    policy = dict(tag for tag in finished.tags if tag[0] == "meta" and "http-equiv" in tag[1])["meta"]
    assert policy["content"].startswith("default-src 'none'")
    assert len(finished.html) < 1_000_000


def test_secrets_in_a_storage_address_stay_out(finished):
    assert "secret" not in finished.html
    assert "storage_path: s3://…@bucket/runs" in finished.text


def test_a_run_that_is_not_finished(tmp_path, page_of):
    write_config(tmp_path / "run")
    write_metrics(tmp_path / "run", 200)
    page = page_of(tmp_path / "run")
    assert "first-run Not finished: no summary yet. Last line of metrics: update 200 of 400." in page.text
    assert "Held-out loss 3.192 nats per target token, update 200" in page.text
    assert "Tokens per second 4,321 in the last line of metrics" in page.text
    assert "Not known: summary.json is written at the end of a run." in page.text
    assert "No samples: the run has not written any." in page.text
    assert "DeepSpeed config: ds_config.json is missing or empty." in page.text
    assert "Not known: no environment.json." in page.text


def test_pictures_stand_beside_the_page(tmp_path, page_of):
    write_config(tmp_path)
    write_metrics(tmp_path, 30)
    embedded = {attributes["src"].split(",")[1] for tag, attributes in page_of(tmp_path).tags if tag == "img"}
    files = {base64.b64encode((tmp_path / name).read_bytes()).decode() for name in ("loss.png", "schedule.png")}
    assert embedded == files


def test_a_stopped_run(tmp_path, page_of):
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY | {"state": "stopped", "updates": 123}))
    assert "Stopped at update 123 of 400" in page_of(tmp_path).text


def test_a_training_loss_with_label_smoothing_is_called_so(tmp_path, page_of):
    words = "The training loss contains label smoothing of 0.1; the held-out loss does not."
    config = parse_config(CONFIG)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert words not in page_of(tmp_path).text
    smoothed = parse_config(CONFIG | {"training": {"label_smoothing": 0.1}})
    (tmp_path / "config.yaml").write_text(to_yaml(smoothed))
    assert words in page_of(tmp_path).text


def test_a_model_worse_than_word_frequencies(tmp_path, page_of):
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY | {"eval_loss": 6.0}))
    page = page_of(tmp_path)
    assert "Difference 0.287 higher than the unigram loss: no better than token frequencies" in page.text


def test_an_empty_folder(tmp_path, page_of):
    folder = tmp_path / "nothing-yet"
    folder.mkdir()
    page = page_of(folder)
    assert page.text.startswith("nothing-yet nothing-yet Not finished: no summary yet.")
    assert "No metrics: no update has been logged." in page.text
    assert "No schedule: config.yaml is missing or has none." in page.text
    assert "Resolved config: config.yaml is missing or empty." in page.text
    assert "img" not in {tag for tag, _ in page.tags}
    assert [path.name for path in folder.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", b'{"state": "fini'),
        ("summary.json", b"[1, 2]"),
        ("samples.json", b'{"source": 1}'),
        ("environment.json", b"\xff\xfe"),
        ("config.yaml", b"a: [1"),
        ("config.yaml", b"just words"),
        ("metrics.jsonl", b'{"step": 1}\noops\n{"step": 2}\n'),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, content, page_of):
    (tmp_path / name).write_bytes(content)
    page = page_of(tmp_path)
    (problem,) = re.findall(r'<p class="bad">(.*?)</p>', page.html)
    assert name in problem


def test_values_of_the_wrong_kind_do_not_stop_the_page(tmp_path, page_of):
    wrong = dict.fromkeys(SUMMARY, "many") | {
        "phases_s": {"a": None, "b": "x", "c": -1},
        "peak_memory_bytes": [None, "x"],
    }
    (tmp_path / "summary.json").write_text(json.dumps(wrong))
    (tmp_path / "samples.json").write_text(json.dumps([{"source": None}, 7, {}]))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": "x", "lr": "y"}\n{"step": 2, "eval_loss": [1]}\n')
    assert "Stopped at update many" in page_of(tmp_path).text


def test_numbers_that_are_not_finite(tmp_path, page_of):
    values = {"eval_loss": math.nan, "tokens_per_s": math.inf, "padding_ratio": math.nan, "wall_s": None}
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY | values))
    with MetricsWriter(Storage(tmp_path), 0) as writer:
        writer.write({"step": 10, "loss": 3.0})
        writer.write({"step": 20, "loss": math.nan})
    page = page_of(tmp_path)
    assert "Held-out loss not finite (nan)" in page.text
    assert "Tokens per second not finite (inf)" in page.text
    assert "Loss not finite in 1 of 2 lines, first at update 20." in page.text


def test_a_schedule_that_cannot_be_drawn_says_why(tmp_path, page_of):
    write_config(tmp_path, schedule={"peak_lr": 1e-3, "total_steps": "3 epochs"})
    page = page_of(tmp_path)
    assert "The schedule cannot be drawn: total_steps" in page.text


def test_hostile_text_stays_text(tmp_path, page_of):
    config = {"run": {"name": HOSTILE}, "data": {"prefix": HOSTILE}, HOSTILE: HOSTILE}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    (tmp_path / "ds_config.json").write_text(HOSTILE.replace("\ud800", ""))
    (tmp_path / "environment.json").write_text(
        json.dumps({HOSTILE: HOSTILE, "list": [HOSTILE], "deep": {HOSTILE: [1]}})
    )
    samples = [{"source": HOSTILE, "reference": HOSTILE, "prediction": HOSTILE}]
    (tmp_path / "samples.json").write_text(json.dumps(samples))
    texts = {"schedule_sentence": HOSTILE, "schedule_driver": HOSTILE, "precision": HOSTILE, "state": HOSTILE}
    nested = {
        "data": {HOSTILE: HOSTILE},
        "phases_s": {HOSTILE: 1.0},
        "eval_loss": HOSTILE,
        "updates": HOSTILE,
    }
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY | texts | nested))
    page = page_of(tmp_path)
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count("<script>alert('x')</script>") > 12
    assert "\x00" not in page.html


def test_the_report_is_written_to_an_object_store(tmp_path, object_store):
    write_config(tmp_path)
    write_report(object_store)
    assert "first-run" in (tmp_path / "report.html").read_text()
