import math
import re
import threading
import time

import pytest

from recipes.launching.live_report import LiveReport
from recipes.reporting.heard import Heard
from recipes.reporting.metrics import MetricsWriter
from recipes.reporting.page import write_live_report, write_report
from recipes.storage import Storage
from tests.comparing.made_runs import make_run
from tests.pages import Page


def line(step, loss=3.0):
    return {"step": step, "loss": loss, "lr": 1e-3, "tokens": 1000 * step, "tokens_per_s": 1000.0}


def page_in(folder):
    return Page((folder / "report.html").read_text())


def refresh(page):
    return [tag["content"] for name, tag in page.tags if name == "meta" and tag.get("http-equiv") == "refresh"]


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", updates=0, finished=False)


@pytest.fixture
def often(monkeypatch):
    """Pages as often as asked for, whatever they cost."""
    monkeypatch.setattr("recipes.launching.live_report._CPU_RATIO", 1.0)


def test_the_page_says_what_was_true_when_it_was_written_and_reloads(run):
    heard = Heard(Storage(run))
    heard.starts(0)
    for step in (10, 20, 30):
        heard.add(line(step, 3.5 - step / 100))
    heard.add({"step": 20, "eval_loss": 3.25, "eval_bleu": 7.5, "eval_s": 1.0})
    write_live_report(Storage(run), heard.metrics(), now=1_800_000_000.0, next_s=45.0)
    page = page_in(run)
    assert "run Running: update 30 of 100, last written at 2027-01-15 08:00:00 UTC" in page.text
    assert "Written again every 45.0 s while the command runs" in page.text
    assert "training 3.200" in page.text
    assert "held-out 3.250" in page.text
    assert "bleu 7.5" in page.text
    assert refresh(page) == ["45"]
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "img"}
    curves = [attributes["points"] for tag, attributes in page.tags if tag == "polyline"]
    assert len(curves) == 3
    assert len(curves[0].split()) == 3


def test_the_last_page_does_not_reload(run):
    write_live_report(Storage(run), Heard(Storage(run)).metrics(), now=0.0, next_s=30.0)
    assert "No update has been logged yet." in page_in(run).text
    write_report(Storage(run), "worker 1 died")
    page = page_in(run)
    assert refresh(page) == []
    assert "run Ended: worker 1 died. Last line of metrics: update 0 of 100." in page.text


def test_the_page_follows_the_run_and_ends_with_it(run, often):
    live = LiveReport(Storage(run), every_s=0.02)
    live.hear({"say": "training"})
    live.hear({"started": 0})
    wait_for(lambda: (run / "report.html").exists())
    live.hear({"metrics": line(10)})
    wait_for(lambda: "Running: update 10 of 100" in page_in(run).text)
    live.close()
    assert "report" not in [thread.name for thread in threading.enumerate()]
    written = live.num_written
    live.hear({"metrics": line(20)})
    time.sleep(0.1)
    assert live.num_written == written


def test_a_page_takes_no_more_than_its_share_of_a_cpu(run, monkeypatch):
    clock = iter([0.0, 2.0, 2.0, 2.1, *[3.0] * 100])
    waits = []
    monkeypatch.setattr("recipes.launching.live_report.time.thread_time", lambda: next(clock))
    live = LiveReport(Storage(run), every_s=30)

    def wait(seconds):
        waits.append(seconds)
        return len(waits) == 2

    monkeypatch.setattr(live._over, "wait", wait)
    live.hear({"started": 0})
    live.close()
    assert waits == [500.0, 30]
    # The second page said when the third would come.
    assert refresh(page_in(run)) == ["500"]


def test_a_storage_that_fails_costs_a_page_and_not_the_run(run, often):
    live = LiveReport(Storage(run), every_s=0.02)
    (run / "report.html").mkdir()
    live.hear({"started": 0})
    time.sleep(0.1)
    assert live.num_written == 0
    (run / "report.html").rmdir()
    wait_for(lambda: live.num_written > 0)
    live.close()


def test_lines_that_cannot_be_read_do_not_stop_the_run(run, often):
    (run / "metrics.jsonl").write_text("oops\n" * 3)
    live = LiveReport(Storage(run), every_s=0.02)
    live.hear({"started": 10})
    live.hear({"metrics": line(20)})
    wait_for(lambda: (run / "report.html").exists() and "update 20 of" in page_in(run).text)
    live.close()


def test_a_resume_and_a_rewind_take_lines_back(tmp_path):
    with MetricsWriter(Storage(tmp_path), 0) as writer:
        for step in (10, 20, 30, 40):
            writer.write(line(step))
    heard = Heard(Storage(tmp_path))
    heard.starts(20)
    for record in (line(30, 2.0), line(40, math.nan), {"step": 20, "rewound_from": 40}, line(30, 1.0)):
        heard.add(record)
    assert [(each["step"], each["loss"]) for each in heard.metrics().train] == [(10, 3.0), (20, 3.0), (30, 1.0)]
    heard.starts(0)
    assert heard.metrics().train == []


def test_the_page_of_a_run_on_an_object_store(tmp_path, object_store, often):
    make_run(tmp_path, updates=0, finished=False)
    live = LiveReport(object_store, every_s=0.02)
    live.hear({"started": 0})
    live.hear({"metrics": line(10)})
    wait_for(lambda: (tmp_path / "report.html").exists() and "update 10 of" in page_in(tmp_path).text)
    live.close()
    assert re.search(r"Running: update 10 of 100", page_in(tmp_path).text)
