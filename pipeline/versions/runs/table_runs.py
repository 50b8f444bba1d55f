"""What a version changes in a table as two runs: the packed rows, and the entries that serving holds of them.

rows     key -> packed row
served   key -> handle u32, bits u8, payload
"""

import numpy as np

from pipeline.errors import InputError
from pipeline.versions.deltas.quantizer import payload_offsets
from pipeline.versions.runs.sorted_run import RunArrays, SortedRun, encode_run
from pipeline.versions.state import EntriesChange, FieldChange, ServedEntries, TableChange

SERVED_WIDTHS = (4, 1)


def encode_rows(change: TableChange) -> SortedRun:
    """The run of a table's rows. Raises InputError."""
    return encode_run(RunArrays(change.keys, change.removed, (np.ascontiguousarray(change.rows),)))


def decode_rows(arrays: RunArrays) -> TableChange:
    """The rows in a run that was read with the size of a row as its only width."""
    return TableChange(arrays.keys, arrays.columns[0], arrays.removed)


def encode_served(change: FieldChange) -> SortedRun:
    """The run of a table's served entries. Raises InputError."""
    handles = np.ascontiguousarray(change.served_handles, "<u4").view(np.uint8).reshape(-1, 4)
    bits = np.ascontiguousarray(change.served_bits).reshape(-1, 1)
    sizes = np.diff(payload_offsets(change.served_bits, change.dim)).astype(np.uint32)
    payload = np.ascontiguousarray(change.served_payload)
    return encode_run(RunArrays(change.served_keys, change.served_removed, (handles, bits), payload, sizes))


def decode_served(arrays: RunArrays, dim: int) -> EntriesChange:
    """The served entries in a run that was read with `SERVED_WIDTHS` and a rest.

    Raises InputError if a payload has not the size of its precision.
    """
    handles, bits = arrays.columns[0].view("<u4").reshape(-1), arrays.columns[1].reshape(-1)
    wanted = np.diff(payload_offsets(bits, dim))
    wrong = np.flatnonzero(arrays.rest_bytes != wanted)
    if len(wrong):
        at = int(wrong[0])
        raise InputError(
            f"payload of key {arrays.keys[at]}: got {arrays.rest_bytes[at]} bytes, "
            f"wanted {wanted[at]} of {bits[at]} bits and dim {dim}"
        )
    return EntriesChange(ServedEntries(dim, arrays.keys, handles, bits, arrays.rest), arrays.removed)
