"""A prediction on workers from the command's side: checks, the Ray it runs on, what is shown, how it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TextIO

from recipes.clusters.quick_check import check_nodes
from recipes.config import ScalingBlock
from recipes.errors import UserError
from recipes.evaluation.saved_model import check_t5
from recipes.launching.chatter import chatter, errors_led_into
from recipes.launching.claim import claimed
from recipes.launching.environment import OF_A_JOB, git_commit, installed_version
from recipes.launching.ray_cluster import joins_cluster, needed_resources, ray_cluster
from recipes.launching.signals import Interrupted, signals_raise
from recipes.prediction.on_ray import Order, predict_on_ray, workers_settings
from recipes.prediction.parts import PartsFolder
from recipes.prediction.pieces import Piece, cut
from recipes.prediction.reading import input_files
from recipes.prediction.settings import Request
from recipes.storage import Storage

_PLAIN_EVERY_S = 10.0


def predict_on_workers(
    request: Request,
    source: str,
    output: str,
    column: str,
    *,
    num_workers: int | None,
    cpus_per_worker: float,
    overwrite: bool,
    say: Callable[[str], None],
) -> int:
    """Write the folder ``output``; the command's exit code.

    num_workers: None: one for each GPU of the cluster, or one.

    Raises:
        UserError: a wrong input, found before Ray starts where that is possible; a cluster without room for the workers.
        RunFailed: a worker failed.
    """
    folder = PartsFolder(output)
    if OF_A_JOB in f"{folder.output.local}/":
        raise UserError(
            f"--output {output}: in a Ray job a relative path lies in the job's own copy of the code, which is lost with it; "
            "give an absolute path that all nodes see, or a URI such as s3://bucket/answers"
        )
    folder.check(overwrite)
    check_t5(request.folder)
    pieces = cut(input_files(source, request.source_column), column)
    if not joins_cluster():
        _check_room(num_workers or 1, {"CPU": cpus_per_worker}, {"CPU": os.cpu_count() or 1}, "this machine")
    try:
        with claimed(folder.parts):
            try:
                numbers = _answered(request, pieces, folder, column, num_workers, cpus_per_worker, overwrite)
            except UserError:
                folder.drop_if_empty()
                raise
        folder.publish(_about(request, column, numbers), len(pieces))
    except Interrupted as stop:
        say(f"stopped; the same command goes on with the parts that are in {folder.parts}")
        return 128 + stop.signum
    if numbers["truncated"]:
        say(f"{numbers['truncated']:,} texts cut off at {request.settings.max_source_tokens} tokens")
    say(f"{numbers['rows']:,} predictions in {numbers['parts']:,} files: {folder.output}")
    return 0


def _answered(
    request: Request,
    pieces: list[Piece],
    folder: PartsFolder,
    column: str,
    num_workers: int | None,
    cpus_per_worker: float,
    overwrite: bool,
) -> dict[str, Any]:
    """Join or start Ray and answer the pieces; numbers and settings of the job. Ray's own words go to a log."""
    with errors_led_into(folder.parts) as stream, chatter() as said, signals_raise():
        said.keep_in(folder.parts)
        say = partial(print, file=stream, flush=True)
        with ray_cluster(ScalingBlock(), say, check_room=False):
            scaling = _scaling(request.settings.device, num_workers, cpus_per_worker, say)
            check_nodes(scaling, _parent(folder.output), say)
            settings = workers_settings(request.settings, scaling.use_gpu)
            order = Order(request.folder, settings, pieces, folder, column, threads=max(1, int(cpus_per_worker)))
            with _Progress(stream, say) as progress:
                return predict_on_ray(order, scaling, overwrite, say, progress)


def _parent(place: Storage) -> Storage:
    return Storage(place.local.parent) if place.local is not None else place


def _scaling(device: str, num_workers: int | None, cpus_per_worker: float, say: Callable[[str], None]) -> ScalingBlock:
    """
    Raises:
        UserError: no GPUs where some are wanted, or no room for the workers.
    """
    import ray

    have, place = ray.cluster_resources(), "the cluster" if joins_cluster() else "this machine"
    num_gpus = int(have.get("GPU", 0))
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device}: workers take auto, cpu or cuda; which GPU, Ray decides")
    if device == "cuda" and not num_gpus:
        raise UserError(f"--device cuda: {place} has no GPU; give cpu")
    use_gpu = num_gpus > 0 and device != "cpu"
    if num_workers is None:
        num_workers = num_gpus if use_gpu else 1
        say(f"{num_workers} worker{'s' if num_workers > 1 else ''} (--num-workers)")
    scaling = ScalingBlock(num_workers=num_workers, use_gpu=use_gpu, cpus_per_worker=cpus_per_worker)
    _check_room(num_workers, needed_resources(scaling), have, place)
    return scaling


def _check_room(num_workers: int, each: dict[str, float], have: dict[str, float], place: str) -> None:
    for kind, amount in each.items():
        if num_workers * amount > have.get(kind, 0):
            raise UserError(
                f"--num-workers is {num_workers}, each with {amount:g} {kind}: {num_workers * amount:g} {kind} needed, but "
                f"{place} has {have.get(kind, 0):g}; lower --num-workers"
                + (" or --cpus-per-worker" if kind == "CPU" else "")
            )


def _about(request: Request, column: str, numbers: dict[str, Any]) -> dict[str, Any]:
    settings = request.settings
    return {
        "model": str(request.folder),
        "column": column,
        "prefix": settings.prefix,
        "max_source_tokens": settings.max_source_tokens,
        "on_too_long": settings.on_too_long,
        "on_bad_row": settings.on_bad_row,
        "generation": vars(settings.decoding),
        "precision": settings.precision,
        **numbers,
        "versions": {name: installed_version(name) for name in ("torch", "transformers", "ray")},
        "git_commit": git_commit(),
    }


class _Progress:
    """Texts answered so far: on a terminal a bar, else a line every some seconds."""

    def __init__(self, stream: TextIO, say: Callable[[str], None]):
        from tqdm import tqdm

        self._bar = tqdm(desc="prediction", unit="text", leave=False, file=stream, disable=not stream.isatty())
        self._say, self._total, self._done, self._last = say, 0, 0, time.monotonic()

    def reset(self, total: int) -> None:
        self._total, self._done = total, 0
        self._bar.reset(total)

    def update(self, num: int) -> None:
        self._done += num
        self._bar.update(num)
        if self._bar.disable and time.monotonic() - self._last >= _PLAIN_EVERY_S:
            self._last = time.monotonic()
            self._say(f"{self._done:,} of {self._total:,} texts")

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()
