"""Predictions for a file, or a folder of files, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from recipes.errors import UserError
from recipes.prediction.predictor import Predictor
from recipes.prediction.reading import InputFile, read_rows
from recipes.prediction.rows import TextRows
from recipes.prediction.screening import Screening
from recipes.prediction.writing import OutputFit, written

# Rows that are read, sorted by length and answered together.
WINDOW_ROWS = 4096


def predict_files(
    predictor: Predictor, files: list[InputFile], output: str, column: str, done: Callable[[int], None], start: Callable
) -> int:
    """Write the rows of all files with their predictions; how many rows there were.

    Everything is read and looked at once before the first text is answered. start, done: take the number of texts to
    answer, and of those just answered.

    Raises:
        UserError: rows that cannot be read, answered or written; nothing is left then.
    """
    screening, fit = Screening(), OutputFit(output, column)
    for rows in _windows(files):
        fit.look(rows)
        screening.look(rows, predictor.tokenizer, predictor.settings)
    if not screening.num_rows:
        raise UserError("--input: there is not a single row")
    screening.refuse(predictor.settings)
    fit.check()

    def counted(batches: list[Any]) -> Iterable[Any]:
        for batch in batches:
            yield batch
            done(len(batch))

    start(screening.num_rows)
    with written(output, column) as writer:
        for rows in _windows(files):
            writer.write(rows, predictor.answers(rows.usable(), counted))
    return screening.num_rows


def _windows(files: list[InputFile]) -> Iterator[TextRows]:
    for file in files:
        yield from read_rows(file, WINDOW_ROWS)
