"""The command, run as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from schedule_cases import make

ROOT = Path(__file__).parents[2]
SCHEDULE = make("cosine", total_steps=20_000, warmup=500)


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text("model: x\nschedule:\n" + "".join(f"  {line}\n" for line in SCHEDULE.to_yaml().splitlines()))
    return str(path)


def lrsched(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "lrsched", *args],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )


def test_table_has_every_digit_of_every_update(spec: str) -> None:
    done = lrsched("table", spec)
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows = done.stdout.splitlines()
    assert header == "step,lr"
    assert rows == [f"{k},{SCHEDULE.lr(k)!r}" for k in range(20_000)]


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        ("3:6", range(3, 6)),
        ("::9000", range(0, 20_000, 9000)),
        ("19998:", range(19_998, 20_000)),
        ("19999:20002:", range(19_999, 20_002)),
        ("0:19999:4999", range(0, 19_999, 4999)),
        ("7:7", range(0)),
    ],
)
def test_table_of_some_updates(spec: str, steps: str, wanted: range) -> None:
    done = lrsched("table", spec, "--steps", steps)
    assert done.stdout.splitlines()[1:] == [f"{k},{SCHEDULE.lr(k)!r}" for k in wanted]


def test_standard_input_and_epochs() -> None:
    text = "{peak_lr: 1e-3, total_steps: 2 epochs, warmup: {steps: 50%}}"
    done = lrsched("table", "-", "--steps-per-epoch", "2", stdin=text)
    assert done.stdout == "step,lr\n0,0.0\n1,0.0005\n2,0.001\n3,0.001\n"


def test_plot_in_the_terminal(spec: str) -> None:
    done = lrsched("plot", spec)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 20
    assert "update k=19999" in done.stdout
    assert lrsched("plot", spec, spec.replace("config", "./config")).stdout.splitlines()[-1].startswith("b: ")


def test_plot_as_png(spec: str, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    done = lrsched("plot", spec, "-o", str(out))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"wrote {out}\n", "")
    assert out.read_bytes().startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize(
    ("args", "stdin", "says"),
    [
        (["table", "nowhere.yaml"], "", "lrsched: cannot read nowhere.yaml: No such file or directory"),
        (["plot", "nowhere.yaml"], "", "lrsched: cannot read nowhere.yaml: No such file or directory"),
        (["table", "-"], "peak_lr: [", "lrsched: not YAML: while parsing"),
        (
            ["table", "-"],
            "{peak_lr: 0, total_steps: 0}",
            "lrsched: peak_lr: 0 is not above 0; write one such as 1.0e-3 | total_steps: 0",
        ),
        (
            ["table", "-"],
            "schedule: {peak_lr: 1, total_steps: 2 epochs}",
            "lrsched: schedule.total_steps: '2 epochs' is in epochs",
        ),
        (["table", "-", "--steps", "5"], "{peak_lr: 1, total_steps: 2}", "lrsched: --steps: '5' is not A:B:C"),
        (
            ["table", "-", "--steps", "1:2:3:4"],
            "{peak_lr: 1, total_steps: 2}",
            "lrsched: --steps: '1:2:3:4' is not A:B:C",
        ),
        (
            ["table", "-", "--steps", "0:5:0"],
            "{peak_lr: 1, total_steps: 2}",
            "lrsched: --steps: '0:5:0' is out of range",
        ),
        (
            ["plot", "-", "-o", "/nowhere/x.png"],
            "{peak_lr: 1, total_steps: 2}",
            "lrsched: cannot write /nowhere/x.png: No such",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args: list[str], stdin: str, says: str) -> None:
    done = lrsched(*args, stdin=stdin)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(says)


def test_bad_usage_is_exit_code_2() -> None:
    done = lrsched("tabel")
    assert done.returncode == 2
    assert "invalid choice: 'tabel'" in done.stderr
    assert "Traceback" not in done.stderr


def test_head_may_close_the_pipe(spec: str) -> None:
    done = subprocess.run(
        f'"{sys.executable}" -m lrsched table "{spec}" | head -n 2; echo "${{PIPESTATUS[0]}}"',
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.stdout == "step,lr\n0,0.0\n0\n"
    assert done.stderr == ""


def test_full_disk(spec: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lrsched", "plot", spec], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    assert (done.returncode, done.stderr) == (2, "lrsched: cannot write the output: No space left on device\n")
