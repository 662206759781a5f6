import json
import re

import numpy as np
import pytest
from pyarrow import fs

from recipes.compare import main
from recipes.comparing.runs import find_runs
from recipes.reporting.chart import Line, chart, style_of, ticks
from recipes.storage import Storage
from tests.comparing.made_runs import make_run
from tests.pages import Page


def as_json(capsys, *arguments):
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_numbers_differences_and_the_best(tmp_path, capsys):
    a = make_run(tmp_path / "a", loss=3.0)
    b = make_run(tmp_path / "b", "schedule.peak_lr=0.002", "run.seed=7", loss=2.5, rate=500.0)
    found = as_json(capsys, a, b)
    assert found["settings"] == {"run.seed": {"a": 0, "b": 7}, "schedule.peak_lr": {"a": 0.001, "b": 0.002}}
    assert found["surroundings"] == {}
    # Ten lines of 10,000 tokens, five evaluations of 2 s.
    assert found["runs"]["a"] | {"folder": ""} == {
        "folder": "",
        "state": "finished",
        "updates": 100,
        "tokens": 100_000,
        "training_s": 110.0,
        "num_workers": 1,
        "num_parameters": None,
        "skipped_batches": None,
        "eval_loss": 3.01,
        "loss": 3.01,
        "lr": 1e-3,
        "tokens_per_s": 1000.0,
    }
    assert found["runs"]["b"]["training_s"] == 210.0
    best = {verdict["metric"]: verdict for verdict in found["best"]}
    assert best["eval_loss"]["ranking"] == [{"run": "b", "value": 2.51}, {"run": "a", "value": 3.01}]
    assert best["eval_loss"]["lower_is_better"] is True
    assert [entry["run"] for entry in best["tokens_per_s"]["ranking"]] == ["a", "b"]
    assert set(best) == {"eval_loss", "tokens_per_s"}
    assert found["caveats"] == [
        "One seed for each setting: a difference may be chance, and none here is claimed to be more."
    ]


def test_runs_of_other_lengths_are_compared_at_the_last_update_all_have(tmp_path, capsys):
    a = make_run(tmp_path / "a", "schedule.total_steps=80", loss=3.0, updates=80)
    b = make_run(tmp_path / "b", loss=3.001, updates=50, finished=False)
    found = as_json(capsys, a, b)
    at = {(verdict["metric"], verdict["at_update"]): verdict["ranking"] for verdict in found["best"]}
    assert at["eval_loss", None] == [{"run": "a", "value": 3 + 1 / 80}, {"run": "b", "value": 3.001 + 1 / 40}]
    assert at["eval_loss", 40] == [{"run": "a", "value": 3 + 1 / 40}, {"run": "b", "value": 3.001 + 1 / 40}]
    assert found["runs"]["b"]["state"] == "update 50 of 100"
    assert found["caveats"][0].startswith("Not finished: b (update 50 of 100).")


def test_metrics_have_open_names(tmp_path, capsys):
    names = {"eval_loss/de": 3.0, "eval_bleu": 20.0, "eval_tokens/de": 5, "eval_mine": 1.0, "eval_generate_s": 3.0}
    a = make_run(tmp_path / "a", evals=names)
    b = make_run(tmp_path / "b", evals=names | {"eval_loss/de": 2.0, "eval_bleu": 21.0, "eval_mine": 2.0})
    best = {verdict["metric"]: verdict for verdict in as_json(capsys, a, b)["best"]}
    lower = {name: verdict["lower_is_better"] for name, verdict in best.items() if name.startswith("eval_")}
    assert lower == {"eval_loss": True, "eval_loss/de": True, "eval_bleu": False, "eval_mine": None}
    assert [best[name]["ranking"][0]["run"] for name in ("eval_loss/de", "eval_bleu", "eval_mine")] == ["b", "b", "b"]
    best_of = "evaluation.best={metric: eval_mine, mode: min}"
    make_run(tmp_path / "b", "evaluation.metrics=[tests.own:f]", best_of, evals={"eval_mine": 2.0})
    best = {verdict["metric"]: verdict for verdict in as_json(capsys, a, tmp_path / "b")["best"]}
    assert (best["eval_mine"]["lower_is_better"], best["eval_mine"]["ranking"][0]["run"]) == (True, "a")


def test_seeds_say_what_chance_does(tmp_path, capsys):
    runs = [make_run(tmp_path / f"seed{seed}", f"run.seed={seed}", loss=3 + 0.1 * seed) for seed in (1, 2)]
    runs.append(make_run(tmp_path / "other", "optimizer.weight_decay=0.5", loss=2.9))
    caveats = as_json(capsys, *runs)["caveats"]
    assert caveats == [
        "Differ in their seed alone: seed1, seed2; their eval_loss at the end is up to 0.1 apart, by chance."
    ]


def test_versions_and_machines(tmp_path, capsys):
    a = make_run(tmp_path / "a")
    b = make_run(tmp_path / "b", environment={"git_commit": "def", "started": "2026-02-02", "command": ["x"]})
    assert as_json(capsys, a, b)["surroundings"] == {"git_commit": {"a": "abc", "b": "def"}}


def test_a_config_of_another_version_and_a_missing_one(tmp_path, capsys):
    a, b, c = (make_run(tmp_path / name) for name in "abc")
    (b / "config.yaml").write_text((b / "config.yaml").read_text() + "future: {key: 1}\n")
    (c / "config.yaml").unlink()
    found = as_json(capsys, a, b, c)
    assert found["settings"] == {"future.key": {"a": None, "b": 1}}
    assert any(line.startswith("b: config.yaml is not one of this version: ") for line in found["caveats"])
    assert "c: no config.yaml that could be read: its settings are not compared" in found["caveats"]


def test_a_run_without_metrics_yet(tmp_path, capsys):
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b", updates=0, finished=False)
    found = as_json(capsys, a, b)
    assert found["best"] == []
    assert found["runs"]["b"]["eval_loss"] is None
    assert "No metrics yet: b." in found["caveats"]
    assert main([str(a), str(b), "--out", str(tmp_path / "page.html")]) == 0
    assert "Nothing to compare yet." in Page((tmp_path / "page.html").read_text()).text


def test_patterns_labels_and_what_is_left_out(tmp_path, capsys, monkeypatch):
    for sweep in ("s1", "s2"):
        for trial in ("000", "001"):
            make_run(tmp_path / sweep / "trials" / trial)
        (tmp_path / sweep / "trials" / "token_cache").mkdir()
    (tmp_path / "s3").write_text("a file that the pattern matches too")
    monkeypatch.chdir(tmp_path)
    assert main(["s?/trials/*", "s1/trials/000"]) == 0
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        f"left out: {place}/trials/token_cache (not a run: no config.yaml there)" for place in ("./s1", "./s2")
    ]
    assert [line.split(":")[0] for line in told.out.splitlines()[:4]] == [
        *("s1/trials/000", "s1/trials/001", "s2/trials/000", "s2/trials/001")
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run-a"], "a comparison needs two runs or more, found: run-a"),
        (["run-a", "run-c"], "run-c: no such run, did you mean 'run-b'?"),
        (["run-a", "none*"], "none*: nothing there matches"),
        (["run-a", "sweep"], "sweep is a sweep: give the runs in it, such as 'sweep/trials/*'"),
        (["run-a", "empty"], "a comparison needs two runs or more, found: run-a; left out: empty (not a run"),
        (["run-a", "run-b", "--out", "empty"], "--out empty: is a folder; give a file, such as empty/comparison.html"),
        (["run-a", "run-b", "--out", "no/page.html"], "--out no/page.html: cannot be written: No such file"),
        (["run-a", "nope://x/y"], "nope://x/y: not a storage this machine can reach"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, capsys, monkeypatch, arguments, words):
    make_run(tmp_path / "run-a")
    make_run(tmp_path / "run-b")
    (tmp_path / "empty").mkdir()
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "ledger.jsonl").write_text("")
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(words)


def test_runs_on_an_object_store(tmp_path, monkeypatch):
    make_run(tmp_path / "bucket" / "runs" / "a")
    make_run(tmp_path / "bucket" / "runs" / "b")

    def object_store(uri):
        storage = Storage(tmp_path / uri.removeprefix("s3://"))
        storage._fs = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
        storage._root, storage.uri = uri.removeprefix("s3://"), uri
        assert storage.local is None
        return storage

    monkeypatch.setattr("recipes.comparing.runs.Storage", object_store)
    runs, left_out = find_runs(["s3://bucket/runs/*", "s3://bucket/runs/a"])
    assert ([run.label for run in runs], left_out) == (["a", "b"], [])
    assert runs[0].progress.series("eval_loss").last == (100, 3.01)


def test_points_stand_over_updates_tokens_and_time(tmp_path):
    make_run(tmp_path / "a", updates=40)
    make_run(tmp_path / "b")
    progress = find_runs([str(tmp_path / "*")])[0][0].progress
    assert [list(x) for x, _ in map(progress.series("loss").along, ("updates", "tokens", "seconds"))] == [
        [10, 20, 30, 40],
        [10_000, 20_000, 30_000, 40_000],
        [10.0, 20.0, 32.0, 42.0],  # the evaluation at 20 comes after its line
    ]
    assert list(progress.series("eval_loss").along("seconds")[0]) == [22.0, 44.0]


def test_the_page_shows_each_chart_over_each_axis_and_needs_nothing_else(tmp_path, capsys):
    for i in range(9):
        make_run(tmp_path / f"run{i}", f"run.seed={i}", loss=3 + i, evals={"eval_bleu": 10.0 + i})
    assert main([str(tmp_path / "run*"), "--out", str(tmp_path / "page.html")]) == 0
    page = Page((tmp_path / "page.html").read_text())
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "img", "form"}
    assert "url(" not in page.html
    curves = [attributes for tag, attributes in page.tags if tag == "polyline" and attributes["points"] != "0,6 38,6"]
    # held-out loss, loss, BLEU, lr, tokens per second
    assert len(curves) == 5 * 3 * 9
    for words in (
        "9 runs compared",
        "Held-out bleu: highest with run8, 18.0000; next run7, 17.0000 (1 apart, 5.88 %).",
    ):
        assert words in page.text
    # The ninth run has the first one's colour, with dashes.
    assert {curve["class"] for curve in curves} == {f"c{i}" for i in range(1, 9)}
    assert sum("stroke-dasharray" in curve for curve in curves) == 5 * 3


def test_hostile_text_stays_text(tmp_path):
    folder = tmp_path / "<script>alert(1)<script>"
    make_run(tmp_path / "b")
    make_run(tmp_path / "c").rename(folder)
    (folder / "environment.json").write_text(json.dumps({"<b>": "</table><script>x</script>"}))
    main([str(folder), str(tmp_path / "b"), "--out", str(tmp_path / "page.html")])
    page = Page((tmp_path / "page.html").read_text())
    assert not {tag for tag, _ in page.tags} & {"script"}
    assert "</table><script>x</script>" in page.text


def test_secrets_in_an_address_stay_out(tmp_path, capsys):
    make_run(tmp_path / "a", "data.source=s3://key:secret@bucket/x.parquet")
    make_run(tmp_path / "b")
    runs = [str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "page.html")]
    assert main(runs) == 0
    assert main([*runs, "--json"]) == 0
    told = capsys.readouterr().out + (tmp_path / "page.html").read_text()
    assert "s3://…@bucket/x.parquet" in told
    assert "key:secret" not in told


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (2.93, 3.31, [3.0, 3.1, 3.2, 3.3]),
        (0, 0.3, [0, 0.1, 0.2, 0.3]),
        (1e-5, 1e-3, [2e-4, 4e-4, 6e-4, 8e-4, 1e-3]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high, 5) == expected


def test_a_start_far_off_does_not_press_the_rest_together():
    y = np.array([1e6, *np.linspace(4, 3, 40)])
    figure = chart("t", [Line(1, "a", np.arange(41.0), y)], str, lambda value: f"{value:.2f}", "updates")
    assert "cut off" in figure
    shown = [float(value) for value in re.findall(r'class="y"[^>]*>([^<]*)<', figure)]
    assert 2.9 < min(shown) < max(shown) < 4.1


def test_every_run_has_a_look_of_its_own():
    assert len({style_of(number) for number in range(1, 25)}) == 24
