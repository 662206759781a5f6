"""The command as users run it: arguments, standard input, files, and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipes import predict
from tests.training.programs import ROOT

TEXTS = ["hello world", "a", "what is the longest word", "abc abc", "seven of nine", "no", "tell me a story now"]


def said(capsys, *arguments):
    """(answers, other lines) of a command that ends well."""
    code = predict.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out.splitlines(), captured.err.splitlines()


def refused(capsys, *arguments):
    """The one line with which a command is refused."""
    assert predict.main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    return line


@pytest.fixture
def standard_input(monkeypatch):
    """Gives the command these bytes, and then the end."""
    streams = []

    def give(content):
        read, write = os.pipe()
        os.write(write, content)
        os.close(write)
        streams.append(os.fdopen(read))
        monkeypatch.setattr(sys, "stdin", streams[0])

    yield give
    for stream in streams:
        stream.close()


def test_a_runs_prefix_and_limits_are_the_defaults(capsys, run, alone):
    expected = [alone(f"say: {text}") for text in TEXTS]
    assert said(capsys, run, *TEXTS) == (expected, [])
    # Or nothing would have been compared.
    assert len(set(expected)) > 5
    assert len({len(text) for text in expected}) > 2


def test_flags_are_laid_over_them(capsys, run, alone):
    expected = [alone(f"do: {text}", max_new_tokens=6, num_beams=3) for text in TEXTS]
    flags = ("--prefix", "do: ", "--max-new-tokens", "6", "--num-beams", "3", "--batch-tokens", "200")
    assert said(capsys, run, *TEXTS, *flags)[0] == expected


def test_a_saved_model_needs_no_run(capsys, folder, alone):
    expected = [alone(text, max_new_tokens=150) for text in TEXTS]
    assert said(capsys, folder, *TEXTS, "--max-new-tokens", "150")[0] == expected


def test_long_texts_are_cut_when_asked(capsys, run, alone):
    long = "x" * 50
    # 5 of the prefix, 34 letters, the end token.
    assert said(capsys, run, "hi", long, "--on-too-long", "truncate") == (
        [alone("say: hi"), alone("say: " + "x" * 34)],
        ["1 texts cut off at 40 tokens"],
    )
    assert refused(capsys, run, "hi", long, "hi") == (
        "1 texts have more than 40 tokens: argument 2 (56 tokens) (longest: 56); raise --max-source-tokens, or cut them off "
        "with --on-too-long truncate"
    )
    assert said(capsys, run, long, "--max-source-tokens", "56")[0] == [alone(f"say: {long}")]


def test_standard_input_line_by_line(capsys, run, alone, standard_input):
    standard_input(b"\xef\xbb\xbfhello\r\nworld\n\nlast")
    answers, _ = said(capsys, run, "--on-bad-row", "skip")
    assert answers == [alone("say: hello"), alone("say: world"), "", alone("say: last")]


def test_a_bad_line_is_named_after_the_answers_before_it(capsys, run, alone, standard_input):
    standard_input(b"hello\n" * 256 + b"you\n\xff\n \n")
    assert predict.main([str(run)]) == 2
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [alone("say: hello")] * 256
    assert captured.err == (
        "2 of 3 texts cannot be used: standard input line 258 (not UTF-8), standard input line 259 (empty); mend them, or "
        "give --on-bad-row skip, which leaves their predictions null\n"
    )


def test_a_reader_that_had_enough(run, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(sys, "stdout", os.fdopen(write, "w"))
    assert predict.main([str(run), "hello"]) == 0
    sys.stdout.close()


def test_a_line_is_answered_before_the_next_comes_and_ctrl_c_ends(run, alone):
    process = subprocess.Popen(
        [sys.executable, "-m", "recipes.predict", str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # Tests that run in the background of a shell have Ctrl-C switched off, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        for text in ("hello", "again"):
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            assert process.stdout.readline() == alone(f"say: {text}") + "\n"
        # It waits for the next line now.
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert process.stderr.read() == "stopped\n"


def test_line_breaks_in_answers_are_escaped(capsys, run, monkeypatch):
    from recipes.prediction.predictor import Predictor

    answers = Predictor.answers
    monkeypatch.setattr(Predictor, "answers", lambda self, texts: [f"{a[:1]}\n{a[1:]}" for a in answers(self, texts)])
    lines, _ = said(capsys, run, *TEXTS)
    assert len(lines) == len(TEXTS)
    assert all("\\n" in line for line in lines)


def write_input(path, texts=TEXTS):
    """The same rows in the format of the file's name."""
    rows = [{"id": i, "question": text, "more": {"n": [i]}} for i, text in enumerate(texts)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    elif path.suffix == ".arrow":
        with pa.ipc.new_file(path, pa.Table.from_pylist(rows).schema) as writer:
            writer.write(pa.Table.from_pylist(rows))
    elif path.suffix in (".csv", ".tsv"):
        cut = "," if path.suffix == ".csv" else "\t"
        path.write_text(
            "\n".join([f"id{cut}question", *(f'00{i}{cut}"{text}"' for i, text in enumerate(texts))]) + "\n"
        )
    elif path.suffix == ".txt":
        path.write_text("\n".join(texts) + "\n")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


BESIDE = {
    ".parquet": [{"id": i, "more": {"n": [i]}} for i in range(7)],
    ".arrow": [{"id": i, "more": {"n": [i]}} for i in range(7)],
    ".jsonl": [{"id": i, "more": {"n": [i]}} for i in range(7)],
    ".json": [{"id": i, "more": {"n": [i]}} for i in range(7)],
    ".csv": [{"id": f"00{i}"} for i in range(7)],
    ".tsv": [{"id": f"00{i}"} for i in range(7)],
    ".txt": [{} for _ in range(7)],
}


@pytest.mark.parametrize("output", [".parquet", ".jsonl"])
@pytest.mark.parametrize("kind", BESIDE)
def test_files(capsys, run, alone, tmp_path, kind, output):
    source, target = write_input(tmp_path / f"in{kind}"), tmp_path / f"out{output}"
    answers, lines = said(capsys, run, "--input", source, "--output", target)
    assert (answers, lines) == ([], [f"7 predictions: {target}"])
    column = "text" if kind == ".txt" else "question"
    expected = [
        beside | {column: text, "prediction": alone(f"say: {text}")}
        for beside, text in zip(BESIDE[kind], TEXTS, strict=True)
    ]
    if output == ".parquet":
        assert pq.read_table(target).to_pylist() == expected
        assert pq.read_schema(target).names[-1] == "prediction"
    else:
        assert [json.loads(line) for line in target.read_text().splitlines()] == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, target.name])


def test_a_folder_in_windows_keeps_the_order(capsys, run, alone, tmp_path, monkeypatch):
    from recipes.prediction import files

    monkeypatch.setattr(files, "WINDOW_ROWS", 2)
    (tmp_path / "in").mkdir()
    write_input(tmp_path / "in" / "b.parquet", TEXTS[::-1])
    write_input(tmp_path / "in" / "a.parquet")
    said(capsys, run, "--input", tmp_path / "in", "--output", tmp_path / "out.parquet", "--output-column", "said")
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["question"] for row in found] == TEXTS + TEXTS[::-1]
    assert [row["said"] for row in found] == [alone(f"say: {row['question']}") for row in found]


def test_an_output_is_replaced_only_when_asked_and_only_when_done(capsys, run, tmp_path):
    source, target = write_input(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    target.write_text("precious")
    job = (run, "--input", source, "--output", target)
    assert refused(capsys, *job) == f"--output {target}: is there already; give another name, or --overwrite"
    bad = write_input(tmp_path / "bad.jsonl", [*TEXTS, ""])
    assert "bad.jsonl row 8 (empty)" in refused(
        capsys, run, "--input", bad, "--output", target, "--overwrite", "--prefix", "a: b"
    )
    assert target.read_text() == "precious"
    said(capsys, *job, "--overwrite")
    assert len(target.read_text().splitlines()) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "in.jsonl", "out.jsonl"]


def test_rows_without_text_are_named_or_skipped(capsys, run, tmp_path):
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table({"question": ["a", None, "b", " "]}), source)
    job = (run, "--input", source, "--output", target)
    assert refused(capsys, *job) == (
        "2 of 4 texts cannot be used: in.parquet row 2 (null), in.parquet row 4 (empty); mend them, or give --on-bad-row "
        "skip, which leaves their predictions null"
    )
    assert not target.exists()
    said(capsys, *job, "--on-bad-row", "skip")
    predictions = pq.read_table(target)["prediction"].to_pylist()
    assert [one is None for one in predictions] == [False, True, False, True]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--num-beams", "0"], "--num-beams is 0: input should be greater than 0"),
        (["--num-beams", "two"], "--num-beams is 'two': input should be a valid integer"),
        (["--max-new-tokens", "13"], "--max-new-tokens is 13, more than data.max_target_tokens 12"),
        (["--max-source-tokens", "1"], "--max-source-tokens is 1: "),
        (["--on-too-long", "truncat"], "--on-too-long is 'truncat', did you mean 'truncate'?"),
        (["--on-bad-row", "drop"], "--on-bad-row is 'drop' (known: refuse, skip)"),
        (["--device", "cuda"], "--device cuda: "),
        (["--device", "warp"], "--device warp: "),
        (["--precision", "fp16"], "--precision fp16: T5 overflows in fp16"),
        (["--precision", "fp23"], "--precision is 'fp23', did you mean 'fp32'?"),
        (["--output", "x.parquet"], "--output needs --input"),
        (["--input", "x.parquet", "--output", "y.parquet"], "give texts as arguments or a file, not both"),
        ([""], "1 of 2 texts cannot be used: argument 2 (empty)"),
    ],
)
def test_wrong_arguments(capsys, run, arguments, words):
    assert words in refused(capsys, run, "a text", *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give --output, a .parquet or .jsonl file"),
        (["--output", "out.txt"], "must end in one of .parquet, .jsonl"),
        (["--output", "nowhere/out.jsonl"], "there is no folder"),
        (
            ["--output", "out.jsonl", "--source-column", "questions"],
            "--source-column: in.jsonl has no column 'questions'",
        ),
        (["--output", "out.jsonl", "--source-column", "id"], "7 of 7 texts cannot be used: in.jsonl row 1 (not text)"),
        (["--output", "out.jsonl", "--output-column", "id"], "--output-column: in.jsonl has a column 'id' already"),
    ],
)
def test_wrong_files(capsys, run, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    write_input(tmp_path / "in.jsonl")
    assert words in refused(capsys, run, "--input", "in.jsonl", *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--num-workers", "0"], "--num-workers is 0: input should be greater than 0"),
        (["--num-workers", "two"], "--num-workers is 'two': input should be a valid integer"),
        (
            ["--num-workers", "1", "--cpus-per-worker", "-1"],
            "--cpus-per-worker is -1.0: input should be greater than 0",
        ),
        (["--num-workers", "100000"], "100000 CPU needed, but this machine has "),
        (["--num-workers", "1", "--output", "out.parquet"], "workers write a folder of Parquet files"),
        (["--num-workers", "1", "--source-column", "qestion"], "has no column 'qestion', did you mean 'question'?"),
        (["--num-workers", "1", "--input", "absent"], "--input: absent: there is no such file or folder"),
        (["--num-workers", "1"], "in a Ray job a relative path lies in the job's own copy of the code"),
    ],
)
def test_what_workers_are_refused_before_ray(capsys, run, tmp_path, monkeypatch, arguments, words):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    place = tmp_path
    if arguments == ["--num-workers", "1"]:
        place = tmp_path / "runtime_resources" / "working_dir_files" / "x"
        place.mkdir(parents=True)
    monkeypatch.chdir(place)
    write_input(place / "in.parquet")
    loaded = {"ray", "torch"} & sys.modules.keys()
    given = ["--input", "in.parquet", "--output", "out", *arguments]
    assert words in refused(capsys, run, *given)
    assert {"ray", "torch"} & sys.modules.keys() == loaded
    assert [path.name for path in place.iterdir()] == ["in.parquet"]


@pytest.mark.parametrize("kind", [".parquet", ".jsonl", ".csv", ".txt"])
def test_an_input_without_rows(capsys, run, tmp_path, kind):
    source = tmp_path / f"in{kind}"
    if kind == ".parquet":
        pq.write_table(pa.table({"question": pa.array([], pa.string())}), source)
    else:
        source.write_text("question\n" if kind == ".csv" else "")
    assert refused(capsys, run, "--input", source, "--output", tmp_path / "out.parquet") == (
        "--input: there is not a single row"
    )
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_wrong_models(capsys, run, tmp_path):
    from transformers import GPT2Config

    assert refused(capsys, tmp_path / "absent", "a").endswith("absent: there is no such folder")
    assert "neither the folder of a run (config.yaml) nor of a saved model" in refused(capsys, tmp_path, "a")
    GPT2Config().save_pretrained(tmp_path)
    assert refused(capsys, tmp_path, "a").endswith("holds a gpt2, not a T5")
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    assert "the run has no export/ yet" in refused(capsys, tmp_path, "a")
    (tmp_path / "config.yaml").write_text("data: {}")
    assert refused(capsys, tmp_path, "a") == f"{tmp_path}/config.yaml is not the config of a run"


def test_broken_models(capsys, folder, tmp_path):
    from safetensors.torch import load_file, save_file

    model = tmp_path / "model"
    shutil.copytree(folder, model)
    weights = load_file(model / "model.safetensors")
    few = {name: weight for name, weight in weights.items() if "layer.0.SelfAttention.q" not in name}
    save_file(few, model / "model.safetensors", metadata={"format": "pt"})
    # transformers would put random numbers in their place.
    assert "its weights lack decoder.block.0.layer.0.SelfAttention.q.weight, encoder." in refused(capsys, model, "a")
    small = weights | {"decoder.final_layer_norm.weight": weights["decoder.final_layer_norm.weight"][:5].clone()}
    save_file(small, model / "model.safetensors", metadata={"format": "pt"})
    assert f"{model}: no model can be loaded: " in refused(capsys, model, "a")
    (model / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    assert f"{model}: no model can be loaded: " in refused(capsys, model, "a")
    shutil.copy(folder / "model.safetensors", model)
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()
    assert refused(capsys, model, "a") == f"{model}: holds no vocabulary (tokenizer.json or spiece.model)"


def test_precision_of_a_bf16_model(folder, tmp_path, monkeypatch):
    """Saved in bf16, on a machine with and without it."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    from recipes.data.tokenizer import bytes_tokenizer
    from recipes.errors import UserError
    from recipes.evaluation.saved_model import load_saved
    from recipes.training import precision

    AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(tmp_path)
    bytes_tokenizer().save(tmp_path)
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(precision, "_cpu_has_bf16", lambda native=native: native)
        model, _ = load_saved(tmp_path, "cpu", "auto")
        assert {parameter.dtype for parameter in model.parameters()} == {expected}
    assert load_saved(tmp_path, "cpu")[0].dtype == torch.bfloat16
    with pytest.raises(UserError, match="--precision bf16: this cpu has no bf16 instructions"):
        load_saved(tmp_path, "cpu", "bf16")
