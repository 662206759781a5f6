"""A Parquet input answered by many workers through Ray Data.

The rows of Ray's dataset are pieces of the input, not texts: a worker (an actor of Ray Data's pool, which loads the model
once) reads its piece, answers it, and writes the answer as a file with the piece's number. So the order is the input's, a
piece that is done twice after a worker's death is the same file, and a job that is started again goes on with the pieces
that have no file yet. Nothing but numbers goes through Ray's object store, and no CPUs are needed beside the workers'.
"""

from __future__ import annotations

import pickle
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

from recipes.config import ScalingBlock
from recipes.errors import RunFailed, UserError, first_line
from recipes.evaluation.saved_model import EXPORT, is_run
from recipes.prediction.parts import LOGS, PartsFolder
from recipes.prediction.pieces import Piece, read_piece
from recipes.prediction.screening import Screening
from recipes.prediction.settings import Settings
from recipes.prediction.writing import with_predictions
from recipes.storage import Storage

# A piece whose worker dies with each of these tries is not the workers' fault.
_PIECE_RETRIES = 3
# Of each worker: nodes come and go in a long job, but one that cannot load its model must not try for ever.
_WORKER_RESTARTS = 20
_WAY_ON = "; the same command goes on with the parts that are written"

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


class Worker:
    """One of Ray Data's pool: called with one piece at a time.

    A fault goes back as a value, because Ray Data passes on little of what is raised.
    """

    def __init__(self, order: Order):
        self.order = order
        self._unready = _fault_of(self.prepare)[1]

    def prepare(self) -> None:
        """Load what is needed for every piece."""

    def work(self, piece: Piece) -> Any:
        raise NotImplementedError

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        [index] = batch["piece"]
        result, fault = (
            (None, self._unready) if self._unready else _fault_of(lambda: self.work(self.order.pieces[index]))
        )
        return {"piece": [index], "answer": [pickle.dumps((result, fault))]}


def _fault_of(work: Callable[[], Any]) -> tuple[Any, dict[str, Any] | None]:
    """The result, or what went wrong: in a line, whether it is the user's to mend, and where."""
    try:
        return work(), None
    except Exception as error:
        user = isinstance(error, UserError)
        line = str(error) if user else f"{type(error).__name__}: {first_line(error)}"
        return None, {"user": user, "line": line, "traceback": traceback.format_exc()}


class Screener(Worker):
    """Looks for rows that cannot be answered; has a tokenizer and no model."""

    def prepare(self) -> None:
        from recipes.evaluation.saved_model import model_folder, model_tokenizer

        with model_folder(self.order.folder) as path:
            self._tokenizer = model_tokenizer(path)

    def work(self, piece: Piece) -> Screening:
        screening = Screening()
        screening.look(read_piece(piece), self._tokenizer, self.order.settings)
        return screening


class Answerer(Worker):
    """Has the model, writes parts, and returns how many texts were cut off."""

    def prepare(self) -> None:
        import torch

        from recipes.prediction.predictor import Predictor

        if self.order.threads is not None:
            torch.set_num_threads(self.order.threads)
        self._predictor = Predictor.load(self.order.folder, self.order.settings)

    def work(self, piece: Piece) -> int:
        before = self._predictor.num_truncated
        rows = read_piece(piece)
        answers = self._predictor.answers(rows.usable())
        self.order.output.write(piece.index, with_predictions(rows.table, self.order.column, answers))
        return self._predictor.num_truncated - before


def predict_on_ray(order: Order, scaling: ScalingBlock, overwrite: bool, say: Say, progress: Any) -> dict[str, Any]:
    """Answer all pieces on the Ray that is connected; the numbers of the job. The folder is whole then, not published.

    progress: takes the number of all texts by reset, of further answered ones by update.

    Raises:
        UserError: texts that cannot be answered, a folder of another job, a worker that cannot load the model.
        RunFailed: a worker failed; the parts that are written stay, and the same command goes on from them.
    """
    began = time.monotonic()
    pool = {
        "num_cpus": scaling.cpus_per_worker,
        "num_gpus": 1 if scaling.use_gpu else None,
        "max_restarts": _WORKER_RESTARTS,
        "max_task_retries": _PIECE_RETRIES,
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
    for index, num_truncated in _mapped(Answerer, order, left, scaling.num_workers, pool):
        progress.update(order.pieces[index].num_rows)
        truncated += num_truncated
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
    indices = [piece.index for piece in order.pieces]
    found = dict(_mapped(Screener, order, indices, num_workers, pool))
    everything = Screening()
    for index in indices:
        everything.add(found[index])
    everything.refuse(order.settings)


def _mapped(
    kind: type[Worker], order: Order, indices: list[int], num_workers: int, pool: dict[str, Any]
) -> Iterator[tuple[int, Any]]:
    """The number of each piece and what workers of a kind return for it, as they get ready."""
    if not indices:
        return
    import ray
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.from_items([{"piece": index} for index in indices], override_num_blocks=len(indices))
    workers = ray.data.ActorPoolStrategy(size=min(num_workers, len(indices)), max_tasks_in_flight_per_actor=1)
    mapped = dataset.map_batches(kind, fn_constructor_args=(order,), batch_size=1, compute=workers, **pool)
    log = f"(log: {order.output.parts}/{LOGS})"
    try:
        for row in mapped.iter_rows():
            result, fault = pickle.loads(row["answer"])
            if fault is not None:
                print(fault["traceback"], file=sys.stderr, flush=True)
                if fault["user"]:
                    raise UserError(fault["line"])
                raise RunFailed(
                    f"a worker failed at {order.pieces[row['piece']].named()}: {fault['line']} {log}{_WAY_ON}"
                )
            yield row["piece"], result
    except ray.exceptions.RayActorError:
        raise RunFailed(
            f"a worker died over and over: killed, or out of memory (then lower --batch-tokens) {log}{_WAY_ON}"
        ) from None
    except ray.exceptions.RayError as error:
        raise RunFailed(f"Ray failed: {type(error).__name__}: {first_line(error)} {log}{_WAY_ON}") from None


def workers_settings(settings: Settings, use_gpu: bool) -> Settings:
    """As a worker is to take them: the device that Ray gives it."""
    return replace(settings, device="cuda" if use_gpu else "cpu")
