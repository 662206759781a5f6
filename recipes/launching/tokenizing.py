"""Texts tokenised by many processes at once: tasks of Ray, on the cluster that will train on them.

This process reads the texts, hands windows of them out, and takes their ids in order: the nodes need to see no file of
them, and the cache is the same byte for byte wherever its ids come from.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import tokenizers

from recipes.config import ScalingBlock
from recipes.data.encoding import Ids, Pool, PoolOf, Texts, encode, in_threads
from recipes.data.tokenizer import TextTokenizer
from recipes.errors import RunFailed, UserError, first_line
from recipes.launching.chatter import chatter
from recipes.launching.ray_cluster import joins_cluster, ray_cluster
from recipes.launching.signals import Interrupted, signals_raise

# A window whose process dies with each of these tries is not the nodes' fault.
_RETRIES = 3
_POLL_S, _SILENCE_S = 0.5, 20.0

Say = Callable[[str], None]


def tokenizing_pool(scaling: ScalingBlock, say: Say) -> PoolOf:
    """Where a run's texts are tokenised: as scaling.num_tokenizing_tasks says.

    say: must keep to the stream of now: while tasks are at work, both of this process's are Ray's.
    """
    return partial(_in_tasks, scaling, say) if scaling.num_tokenizing_tasks else in_threads


@contextmanager
def _in_tasks(scaling: ScalingBlock, say: Say, tokenizer: TextTokenizer) -> Iterator[Pool]:
    try:
        with chatter(), signals_raise(), ray_cluster(scaling, _nothing, check_room=False):
            place = f"the cluster at {os.environ['RAY_ADDRESS']}" if joins_cluster() else "a local Ray of this command"
            num = scaling.num_tokenizing_tasks
            say(f"data: tokenising in {num:,} task{'s' if num > 1 else ''} on {place}")
            yield _Tasks(tokenizer, scaling, say)
    except Interrupted as stop:
        stop.way_on = "; the same command goes on with what is tokenised"
        raise


def _nothing(text: str) -> None:
    pass


class _Tasks:
    def __init__(self, tokenizer: TextTokenizer, scaling: ScalingBlock, say: Say):
        import ray

        self.num_at_once = scaling.num_tokenizing_tasks
        self._wait_s, self._say, self._told = scaling.node_wait_s, say, False
        self._files = ray.put(tokenizer.files())
        # A task has one CPU; else `tokenizers` would take all of its node.
        one_cpu = {"env_vars": {"TOKENIZERS_PARALLELISM": "false"}}
        self._task = ray.remote(num_cpus=1, max_retries=_RETRIES, runtime_env=one_cpu)(_encoded)

    def begin(self, texts: Texts) -> Callable[[], list[Ids]]:
        # In a list, so that Ray hands on the reference and a process fetches what it stands for once.
        task = self._task.remote([self._files], texts)
        return lambda: self._ids(task)

    def _ids(self, task: Any) -> list[Ids]:
        import ray

        try:
            version, ids = self._answer(task.future())
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise RunFailed(
                f"data: a task that tokenised failed: {type(cause).__name__}: {first_line(cause)}"
            ) from None
        except ray.exceptions.RayError as error:
            raise RunFailed(
                f"data: tokenising on Ray failed: {type(error).__name__}: {first_line(error)} The same command goes on with what is tokenised"
            ) from None
        if version != tokenizers.__version__:
            raise UserError(
                f"scaling.num_tokenizing_tasks: a node has tokenizers {version}, this machine {tokenizers.__version__}: "
                "install the same everywhere (requirements.lock), or set it to 0"
            )
        return ids

    def _answer(self, task: Future[Any]) -> Any:
        began = time.monotonic()
        while not wait([task], _POLL_S).done:
            waited_s = time.monotonic() - began
            if waited_s > self._wait_s:
                raise RunFailed(
                    f"data: no task has tokenised anything for {self._wait_s} s (scaling.node_wait_s); {_free_cpus()}"
                )
            if waited_s > _SILENCE_S and not self._told:
                self._say(
                    f"data: waiting for a task to tokenise (at most {self._wait_s} s, scaling.node_wait_s); {_free_cpus()}"
                )
                self._told = True
        return task.result()


def _free_cpus() -> str:
    import ray

    free, have = ray.available_resources().get("CPU", 0.0), ray.cluster_resources().get("CPU", 0.0)
    return f"each needs a CPU, and {free:g} of the {have:g} are free"


def _encoded(files: list[Any], texts: Texts) -> tuple[str, list[Ids]]:
    """What a task does; with the version on which the ids depend."""
    return tokenizers.__version__, encode(_tokenizer(files[0]), texts)


@lru_cache(maxsize=1)
def _tokenizer(files: Any) -> TextTokenizer:
    """Kept by a process for its next tasks, with the words that it knows by then."""
    import ray

    return TextTokenizer.of_files(ray.get(files))
