"""What the user sees while a run trains."""

import io

import pytest

from recipes.launching.terminal import Terminal, duration

RECORD = {"step": 10, "loss": 4.25, "lr": 5e-3, "tokens_per_s": 12345.6, "grad_norm": 1.0}


class FakeTerminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (75, "1:15"), (3700, "1:01:40"), (90000, "25:00:00")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_plain_lines_where_output_is_no_terminal():
    stream = io.StringIO()
    terminal = Terminal(100, stream)
    terminal.show(RECORD)
    terminal.show(RECORD | {"step": 20})
    terminal.show({"step": 20, "eval_loss": 4.0, "eval_tokens": 9, "eval_s": 1.0})
    terminal.show(RECORD | {"step": 100, "loss": 3.0})
    terminal.close()
    assert stream.getvalue().splitlines() == [
        "update 10/100: loss 4.2500, lr 0.005, 12,346 tokens/s, ? left",
        "update 20: held-out loss 4.0000 nats per target token",
        "update 100/100: loss 3.0000, lr 0.005, 12,346 tokens/s, 0:00 left",
    ]


def test_one_live_line_on_a_terminal_and_lasting_lines_above_it():
    stream = FakeTerminal()
    terminal = Terminal(100, stream)
    terminal.show(RECORD)
    terminal.say("something lasting")
    terminal.show(RECORD | {"step": 20})
    terminal.close()
    text = stream.getvalue()
    assert "update 10/100" in text
    assert "update 20/100" in text
    assert "loss 4.2500, lr 0.005, 12,346 tokens/s" in text
    assert text.count("\n") == 1
    assert "something lasting\n" in text


def test_time_left_starts_over_after_a_resume():
    stream = io.StringIO()
    terminal = Terminal(100, stream, plain_every_s=0)
    terminal.show(RECORD | {"step": 50})
    terminal.show(RECORD | {"step": 40})
    assert stream.getvalue().splitlines()[1].endswith("? left")
