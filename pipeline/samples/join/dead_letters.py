"""The dead letters of the join: events that yield no sample, with the reason."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.block import DEAD_LETTER_SCHEMA, DeadLetters

DETAILS = {
    "impression_too_late": "the impression's time is below its partition's watermark",
    "duplicate_impression": "an earlier impression has this join key",
    "orphan_click": "no impression with this join key is known",
    "click_before_impression": "the impression with this join key is later than the click",
    "click_too_late": "the click is later than window and horizon",
    "duplicate_click": "the impression has a click already",
    "weight_out_of_range": "the weight is negative, larger than samples.max_weight, or not a number",
    "number_out_of_range": "a dense number is outside its range or not finite, or a vector has another size",
    "weights_invalid": "a list of weights has another length than its list of values, or a number that is not finite",
    "candidate_too_late": "the candidate's time is below its partition's watermark",
    "duplicate_candidate": "an earlier candidate has this join key and time",
    "score_out_of_range": "the score of a candidate is missing, not a number, or outside 0 to 1",
    "label_out_of_range": "a label is outside its range in samples.label_ranges or [[labels]], or not a number",
}
"""By reason."""

_NO_DEAD_LETTERS = DeadLetters(pa.RecordBatch.from_pylist([], schema=DEAD_LETTER_SCHEMA))


def dead_letters(reason: str, topic: str, rows: np.ndarray, columns: pa.RecordBatch) -> DeadLetters:
    """Dead letters of one reason.

    Args:
        reason: one of `DETAILS`.
        topic: the source topic of the events.
        rows: [n] with at, partition, offset and row.
        columns: [n] raw columns; `original` is each row as JSON.
    """
    n = len(rows)
    originals = [
        json.dumps({"at": at, **values}, ensure_ascii=False, default=str).encode()
        for at, values in zip(rows["at"].tolist(), columns.to_pylist(), strict=True)
    ]
    arrays = [
        pa.repeat(reason, n),
        pa.repeat(topic, n),
        *(pa.array(np.ascontiguousarray(rows[name])) for name in ("partition", "offset", "row", "at")),
        pa.repeat(DETAILS[reason], n),
        pa.array(originals, pa.binary()),
    ]
    return DeadLetters(pa.RecordBatch.from_arrays(arrays, schema=DEAD_LETTER_SCHEMA))


def concatenate_dead_letters(parts: Sequence[DeadLetters]) -> DeadLetters:
    """All parts, ordered by source position."""
    tables = [part.table for part in parts if part.table.num_rows]
    if not tables:
        return _NO_DEAD_LETTERS
    table = pa.concat_batches(tables)
    keys = [(name, "ascending") for name in ("topic", "partition", "offset", "row")]
    return DeadLetters(table.take(pc.sort_indices(table, sort_keys=keys)))
