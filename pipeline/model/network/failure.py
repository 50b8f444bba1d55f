"""Failures of the user's network, as errors that name it and the first sample that fails."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.arrays.types import Float32s
from pipeline.errors import ModelError, UserCodeError
from pipeline.features.user_code import failing_row, summary_of


@contextmanager
def naming_the_model(reference: str, inputs: Float32s, call: Callable[[Float32s], Any]) -> Iterator[None]:
    """Raise what the user's code raises for `inputs` as ModelError; `call` finds the row that fails."""
    try:
        yield
    except ModelError as failure:
        raise ModelError(f"the model of {reference}: {failure}") from None
    except (Exception, SystemExit) as failure:
        row = failing_row(len(inputs), lambda rows: call(inputs[rows]))
        raise UserCodeError(f"the model of {reference} failed: {summary_of(failure)}", row) from failure
