"""A Parquet input answered by many workers through Ray Data.

The rows of Ray's dataset are pieces of the input, not texts: a worker (an actor of Ray Data's pool, which loads the model
once) reads its piece, answers it, and writes the answer as a file with the piece's number. So the order is the input's, a
piece that is done twice after a worker's death is the same file, and a job that is started again goes on with the pieces
that have no file yet. Nothing but numbers goes through Ray's object store, and no CPUs are needed beside the workers'.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

from recipes.config import ScalingBlock
from recipes.errors import RunFailed, UserError
from recipes.evaluation.saved_model import EXPORT, is_run
from recipes.prediction.parts import LOGS, PartsFolder
from recipes.prediction.pieces import Piece
from recipes.prediction.settings import Settings
from recipes.storage import Storage

# A piece whose worker dies this often is not the workers' fault.
_MOST_DEATHS = 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What every worker gets. threads: of torch; None: as torch says."""

    folder: Storage
    settings: Settings
    pieces: list[Piece]
    output: PartsFolder
    column: str
    threads: int | None

    def fingerprint(self) -> dict[str, Any]:
        """What decides the content of the parts; a hash of the input, of the model and of how it is asked."""
        model = self.folder / EXPORT if is_run(self.folder) else self.folder
        files = {piece.file.path: piece.file for piece in self.pieces}
        infos = [file.filesystem.get_file_info(path) for path, file in files.items()]
        inputs = [[info.path, info.size, info.mtime_ns] for info in infos]
        cuts = [[piece.file.path, piece.begin, piece.end] for piece in self.pieces]
        return {
            "num_parts": len(self.pieces),
            "input": _hash([inputs, cuts, self.pieces[0].file.source_column]),
            "model": _hash(sorted(model.stamps().items())),
            "settings": _hash([asdict(self.settings), self.column]),
        }


def _hash(value: Any) -> str:
    return sha256(repr(value).encode()).hexdigest()


class _Screener:
    """Looks for rows that cannot be answered; has a tokenizer and no model."""

    def __init__(self, order: Order):
        from recipes.evaluation.saved_model import model_folder, model_tokenizer

        self._order = order
        with model_folder(order.folder) as path:
            self._tokenizer = model_tokenizer(path)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import pickle

        from recipes.prediction.pieces import read_piece
        from recipes.prediction.screening import Screening

        [index] = batch["piece"]
        screening = Screening()
        screening.look(read_piece(self._order.pieces[index]), self._tokenizer, self._order.settings)
        return {"piece": [index], "screening": [pickle.dumps(screening)]}


class _Answerer:
    def __init__(self, order: Order):
        import torch

        from recipes.prediction.predictor import Predictor

        if order.threads is not None:
            torch.set_num_threads(order.threads)
        self._order = order
        self._predictor = Predictor.load(order.folder, order.settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        from recipes.prediction.pieces import read_piece
        from recipes.prediction.writing import with_predictions

        [index] = batch["piece"]
        piece, before = self._order.pieces[index], self._predictor.num_truncated
        rows = read_piece(piece)
        answers = self._predictor.answers(rows.usable())
        self._order.output.write(piece.index, with_predictions(rows.table, self._order.column, answers))
        return {"piece": [index], "truncated": [self._predictor.num_truncated - before]}


def predict_on_ray(order: Order, scaling: ScalingBlock, overwrite: bool, say: Say, progress: Any) -> dict[str, Any]:
    """Answer all pieces on the Ray that is connected, and publish the folder; the numbers of the job.

    progress: takes the number of all texts by reset, of further answered ones by update.

    Raises:
        UserError: texts that cannot be answered, a folder of another job, a worker that cannot load the model.
        RunFailed: a worker failed; the parts that are written stay, and the same command goes on from them.
    """
    began = time.monotonic()
    pool = {
        "num_cpus": scaling.cpus_per_worker,
        "num_gpus": 1 if scaling.use_gpu else None,
        "max_restarts": _MOST_DEATHS,
        "max_task_retries": _MOST_DEATHS,
    }
    total = sum(piece.num_rows for piece in order.pieces)
    num_files = len({piece.file.path for piece in order.pieces})
    say(f"looking at {total:,} rows of {num_files:,} file{'s' if num_files > 1 else ''}")
    _screen(order, scaling.num_workers, pool | {"num_gpus": None})
    done = order.output.begin(order.fingerprint(), overwrite)
    if done:
        say(f"{order.output.parts}: going on after {len(done):,} of {len(order.pieces):,} parts")
    progress.reset(total)
    progress.update(sum(order.pieces[index].num_rows for index in done))
    truncated = 0
    left = [piece.index for piece in order.pieces if piece.index not in done]
    for row in _mapped(_Answerer, order, left, scaling.num_workers, pool):
        progress.update(order.pieces[row["piece"]].num_rows)
        truncated += row["truncated"]
    order.output.check_whole(order.pieces)
    return {
        "rows": total,
        "parts": len(order.pieces),
        "parts_of_an_earlier_start": len(done),
        "truncated": truncated,
        "device": order.settings.device,
        "num_workers": scaling.num_workers,
        "seconds": round(time.monotonic() - began, 3),
    }


def _screen(order: Order, num_workers: int, pool: dict[str, Any]) -> None:
    import pickle

    from recipes.prediction.screening import Screening

    found = {
        row["piece"]: pickle.loads(row["screening"])
        for row in _mapped(_Screener, order, [piece.index for piece in order.pieces], num_workers, pool)
    }
    everything = Screening()
    for index in sorted(found):
        everything.add(found[index])
    everything.refuse(order.settings)


def _mapped(
    kind: type, order: Order, indices: list[int], num_workers: int, pool: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """What workers of a kind return for each piece, as they get ready."""
    if not indices:
        return
    import ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    dataset = ray.data.from_items([{"piece": index} for index in indices], override_num_blocks=len(indices))
    workers = ray.data.ActorPoolStrategy(size=min(num_workers, len(indices)), max_tasks_in_flight_per_actor=1)
    mapped = dataset.map_batches(kind, fn_constructor_args=(order,), batch_size=1, compute=workers, **pool)
    try:
        yield from mapped.iter_rows()
    except ray.exceptions.RayError as error:
        raise _explained(error, order) from None


def _explained(error: Exception, order: Order) -> Exception:
    """The one error that matters, in a line."""
    import ray

    cause: Any = error
    while (inner := getattr(cause, "cause", None) or cause.__cause__) is not None and inner is not cause:
        cause = inner
    if isinstance(cause, UserError):
        return UserError(str(cause))
    way_on = f" (log: {order.output.parts}/{LOGS}); the same command goes on with the parts there"
    if isinstance(cause, ray.exceptions.RayActorError):
        return RunFailed(
            f"a worker died {_MOST_DEATHS + 1} times over: killed, or out of memory (then lower --batch-tokens){way_on}"
        )
    return RunFailed(
        f"a worker failed: {type(cause).__name__}: {(str(cause).strip() or 'no message').splitlines()[0]}{way_on}"
    )


def workers_settings(settings: Settings, use_gpu: bool) -> Settings:
    """As a worker is to take them: the device that Ray gives it."""
    return replace(settings, device="cuda" if use_gpu else "cpu")
