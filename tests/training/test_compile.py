"""training.compile changes how an update is computed, not what."""

import pytest

from recipes.config_file import load_config
from recipes.errors import UserError
from recipes.launching.preflight import prepare
from tests.conftest import small_run
from tests.training.alone import train_alone


def job_of(pairs, storage, *settings):
    arguments = small_run(pairs, storage, "scaling.num_workers=1", "model.shape.dropout_rate=0", *settings)
    return prepare(load_config(arguments[0], arguments[1:]), lambda text: None, started_at=0.0)[0]


# DeepSpeed's linear of stage 3 stays in torch once a test of this process has used that stage; torch's compiler makes an object of it.
@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'> should not be instantiated")
@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2])
def test_the_losses_are_those_of_the_run_that_is_not_compiled(process_group, pairs, tmp_path, stage):
    losses = {}
    for name in ("plain", "compiled"):
        settings = (f"run.name={name}", f"deepspeed.zero_stage={stage}", f"training.compile={name == 'compiled'}")
        summary, _ = train_alone(job_of(pairs, tmp_path, *settings))
        losses[name] = summary["evaluation"]["eval_loss"]
    assert losses["compiled"] == pytest.approx(losses["plain"], rel=1e-5)


def test_without_a_compiler_it_is_refused(process_group, pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        UserError, match=r"^training.compile: torch needs a C\+\+ compiler on every node and finds none"
    ):
        train_alone(job_of(pairs, tmp_path, "training.compile=true"))


def test_stage_3_is_refused(pairs, tmp_path):
    with pytest.raises(UserError, match=r"training.compile is for ZeRO stages 0 to 2"):
        job_of(pairs, tmp_path, "training.compile=true", "deepspeed.zero_stage=3")
