"""Faults between hosts: what becomes of a training over two of them, and how long it takes. Root; see cluster/test_hosts.

    sudo .venv/bin/python benchmarks/host_faults.py [SCENARIO ...] [--json faults.json]

A cluster is made by `ray up` over test hosts, with Ray's settings as they are; each scenario trains a small T5 over two hosts,
breaks something after some updates, and watches. Prints a Markdown row for each.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cluster.test_hosts.lab import CHECKOUT, Lab

_POLL_S = 0.1
_LIMIT_S = 420.0


@dataclass(frozen=True)
class Row:
    """What happened. All in seconds from the fault.

    noticed_s: until no more updates came (the last of before). back_s: until the next one after. lost_updates: made again.
    exit_code: of the command; None: ended by us.
    """

    scenario: str
    last_update_s: float
    back_s: float | None
    lost_updates: int | None
    num_workers_after: int | None
    whole_s: float
    exit_code: int | None
    last_words: str


class Training:
    """A `recipes.train` on the head, and what it has logged."""

    def __init__(self, lab: Lab, name: str, *overrides: str):
        self.lab, self.name = lab, name
        self.folder = lab.shared / "runs" / name
        self._log = lab.shared / f"{name}.log"
        words = [
            *(
                "python -m recipes.train recipes/configs/local.yaml",
                f"run.storage_path={lab.shared}/runs",
                f"run.name={name}",
            ),
            *(
                "schedule.total_steps=1000000",
                "schedule.warmup.steps=20",
                "training.log_every_steps=1",
                "run.resume=auto",
            ),
            *("training.eval_every_steps=1000000", "training.num_samples=0", "checkpoint.every_steps=20"),
            *(
                "scaling.num_workers=2",
                "scaling.cpus_per_worker=2",
                "training.examples_per_update=8",
                "scaling.stop_grace_s=20",
            ),
            *("model.shape.num_layers=1", "model.shape.d_model=64", "scaling.max_failures=5", *overrides),
        ]
        self.words = f"cd {CHECKOUT} && RAY_ADDRESS={lab.address} exec {' '.join(words)}"
        self.updates: list[tuple[float, int]] = []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = self.lab.start("head", self.words, self._log)

    def look(self) -> None:
        """Take in new lines of metrics.jsonl."""
        path = self.folder / "metrics.jsonl"
        steps = [json.loads(line)["step"] for line in path.read_text().splitlines()[-3:]] if path.exists() else []
        if steps and (not self.updates or self.updates[-1][1] != steps[-1]):
            self.updates.append((time.monotonic(), steps[-1]))

    def wait(self, condition: Callable[[], bool], limit_s: float = _LIMIT_S) -> bool:
        end = time.monotonic() + limit_s
        while time.monotonic() < end and self.process.poll() is None:
            self.look()
            if condition():
                return True
            time.sleep(_POLL_S)
        return False

    @property
    def step(self) -> int:
        return self.updates[-1][1] if self.updates else 0

    def end(self) -> int | None:
        """Stop it; its exit code, None if it had to be killed."""
        if self.process.poll() is None:
            self.lab.do("head", "pkill -TERM -f '^python -m recipes.train'", check=False)
            try:
                self.process.wait(timeout=90)
            except subprocess.TimeoutExpired:
                self.lab.do("head", "pkill -KILL -f '^python -m recipes.train'", check=False)
                self.process.wait()
                return None
        return self.process.returncode

    def said(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines()

    def workers(self) -> int | None:
        found = re.findall(r"(?:resumed at|training from) update \d+ of \d+ on (\d+) worker", "\n".join(self.said()))
        return int(found[-1]) if found else None


def watch(
    lab: Lab, scenario: str, overrides: list[str], fault: Callable[[], None], repair: Callable[[], None] | None
) -> Row:
    """Train, break, watch until updates come again or the command ends. repair: called 30 s after the fault."""
    training = Training(lab, f"{scenario}_{int(time.time())}", *overrides)
    training.start()
    if not training.wait(lambda: training.step >= 30):
        raise SystemExit(f"{scenario}: never got to update 30:\n" + "\n".join(training.said()[-10:]))
    broken_at, before = time.monotonic(), training.step
    fault()
    repaired = repair is None
    again: tuple[float, int] | None = None
    quiet_after = training.updates[-1]
    while time.monotonic() - broken_at < _LIMIT_S and training.process.poll() is None:
        if not repaired and time.monotonic() - broken_at > 30:
            repaired = True
            repair()
        seen = len(training.updates)
        training.look()
        if len(training.updates) > seen:
            now, step = training.updates[-1]
            pause_s = now - quiet_after[0]
            if pause_s > 5 or step <= quiet_after[1]:
                again = (now, step)
                break
            quiet_after = (now, step)
            if now - broken_at > 45 and repaired:
                break  # it never stopped
        time.sleep(_POLL_S)
    training.wait(lambda: training.step >= before + 20, 30)
    whole_s, code = time.monotonic() - broken_at, training.end()
    return Row(
        scenario=scenario,
        last_update_s=round(quiet_after[0] - broken_at, 1),
        back_s=round(again[0] - broken_at, 1) if again else None,
        lost_updates=max(0, quiet_after[1] + 1 - again[1]) if again else None,
        num_workers_after=training.workers(),
        whole_s=round(whole_s, 1),
        exit_code=code,
        last_words=training.said()[-1] if training.said() else "",
    )


def pid_of_a_worker(lab: Lab, host: str) -> str:
    return lab.do(host, "pgrep -f ray::RayTrainWorker | head -1").stdout.strip()


def delayed(lab: Lab, delay_ms: float) -> dict[str, float]:
    """Seconds per update without and with every packet of one host so much later, each way."""
    training = Training(lab, f"delay_{int(time.time())}")
    training.start()
    training.wait(lambda: training.step >= 60)
    quick = pace(training, 20)
    lab.hosts.slow("w1", delay_ms)
    training.wait(lambda: training.step >= training.step + 5, 3)
    slow = pace(training, 20)
    lab.hosts.unslow("w1")
    code = training.end()
    return {"delay_ms": delay_ms, "update_s": round(quick, 3), "delayed_update_s": round(slow, 3), "exit_code": code}


def pace(training: Training, num_updates: int) -> float:
    began, first = time.monotonic(), training.step
    training.wait(lambda: training.step >= first + num_updates)
    return (time.monotonic() - began) / max(1, training.step - first)


def head_restarts(lab: Lab) -> dict[str, object]:
    """The head's Ray dies, and with it all of the cluster; `ray up` and the same command again."""
    training = Training(lab, f"head_{int(time.time())}")
    training.start()
    training.wait(lambda: training.step >= 30)
    began, before = time.monotonic(), training.step
    lab.do("head", "pkill -9 gcs_server; pkill -9 raylet", check=False)
    ended = training.wait(lambda: False, 120) or training.process.poll() is not None
    noticed_s, code, words = time.monotonic() - began, training.end(), training.said()[-1]
    up_from = time.monotonic()
    lab.ray_up()
    up_s, again_from, steps = time.monotonic() - up_from, time.monotonic(), len(training.updates)
    training.start()
    training.wait(lambda: len(training.updates) > steps)
    back_s, resumed = time.monotonic() - again_from, training.step
    training.end()
    return {
        "command_ended": ended, "noticed_s": round(noticed_s, 1), "exit_code": code, "last_words": words,
        "ray_up_s": round(up_s, 1), "first_update_s": round(back_s, 1), "lost_updates": max(0, before + 1 - resumed),
    }  # fmt: skip


def scenarios(lab: Lab) -> dict[str, Callable[[], object]]:
    hosts = lab.hosts

    def power_off() -> None:
        hosts.drop("w1")  # a machine that loses power does not say good-bye
        hosts.off("w1")

    def power_on() -> None:
        lab.on("w1")
        hosts.undrop("w1")

    def run(
        name: str, fault: Callable[[], None], repair: Callable[[], None] | None = None, *overrides: str
    ) -> Callable[[], Row]:
        return lambda: watch(lab, name, list(overrides), fault, repair)

    elastic = ("scaling.min_workers=1", "scaling.max_workers=2", "scaling.resize_interval_s=10")
    return {
        "worker_killed": run("worker_killed", lambda: lab.do("w1", f"kill -9 {pid_of_a_worker(lab, 'w1')}")),
        "raylet_killed": run("raylet_killed", lambda: lab.do("w1", "pkill -9 -x raylet")),
        "power_off_30s": run("power_off_30s", power_off, power_on),
        "link_lost_30s": run("link_lost_30s", lambda: hosts.drop("w1"), lambda: hosts.undrop("w1")),
        "link_lost_for_good": run("link_lost_for_good", lambda: hosts.drop("w1"), None, "scaling.node_wait_s=60"),
        "link_lost_elastic": run("link_lost_elastic", lambda: hosts.drop("w1"), None, *elastic),
        "delay_50ms": lambda: delayed(lab, 50),
        "head_restarts": lambda: head_restarts(lab),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="*")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="host_faults_") as temporary:
        lab = Lab(Path(temporary) / "hosts", Path(temporary) / "shared", prefix="t5f", network="10.79.0")
        known = scenarios(lab)
        unknown = set(options.scenario) - known.keys()
        if unknown:
            raise SystemExit(f"no scenario {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
        for name in options.scenario or known:
            # A fresh cluster for each: what one breaks must not be the next one's.
            lab.up()
            try:
                row = known[name]()
            finally:
                lab.down()
            line = {"scenario": name} | (asdict(row) if isinstance(row, Row) else row)
            found.append(line)
            print(json.dumps(line), flush=True)
            if options.json:
                options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
