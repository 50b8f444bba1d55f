"""Rows of other serving systems: what `schemas/rows.md` reads is what the row codec decodes."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.publish.row_formats import FORMATS, GRIDS, row_schema, write_rows
from pipeline.versions.deltas.quantizer import decode_rows, encode_codebook, encode_rows
from tests.support.page import page, run

PAGE = page("rows.md")
GREATEST = 2**64 - 1


@pytest.fixture(scope="module")
def read_rows():
    return run(PAGE, "rows")["read_rows"]


def pieces_of(dim, sizes=(300, 700)):
    random = np.random.default_rng(dim)
    for shard, size in enumerate(sizes):
        keys = np.unique(random.integers(0, 2**64, size, np.uint64))
        keys[0], keys[-1] = 0, GREATEST
        yield shard, keys, (0.05 * random.standard_normal((len(keys), dim))).astype(np.float32)


def decoded(rows, format):
    if format not in GRIDS:
        return decode_rows(encode_rows(rows, format), format, rows.shape[1])
    encode = encode_codebook if format.startswith("codebook") else encode_rows
    return decode_rows(encode(rows, GRIDS[format]), GRIDS[format], rows.shape[1])


@pytest.mark.parametrize("dim", [1, 5, 16])
@pytest.mark.parametrize("format", FORMATS)
def test_the_reader_of_the_page_reads_what_was_written(tmp_path, read_rows, format, dim):
    path, pieces = tmp_path / "rows.parquet", list(pieces_of(dim))
    assert write_rows(path, pieces, format, dim) == sum(len(keys) for _, keys, _ in pieces)
    keys, weights = read_rows(path)
    assert (keys == np.concatenate([keys for _, keys, _ in pieces])).all()
    assert weights.tobytes() == np.concatenate([decoded(rows, format) for *_, rows in pieces]).tobytes()
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [
        len(keys) for _, keys, _ in pieces
    ]
    assert file.schema_arrow.equals(row_schema(format, dim))


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_rows_give_the_same_file(tmp_path, format):
    for name in ("one", "other"):
        write_rows(tmp_path / name, pieces_of(16), format, 16)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_codebook_stores_a_grid_in_a_byte(tmp_path):
    pieces = list(pieces_of(16, (20_000,)))
    sizes = {}
    for format in ("int4", "codebook4"):
        write_rows(tmp_path / format, pieces, format, 16)
        group = pq.ParquetFile(tmp_path / format).metadata.row_group(0)
        (sizes[format],) = (
            group.column(i).total_uncompressed_size
            for i in range(group.num_columns)
            if group.column(i).path_in_schema == "grid"
        )
    rows = len(pieces[0][1])
    assert sizes["int4"] > 4 * rows
    assert sizes["codebook4"] < 1.01 * rows + 4 * 256 + 200


def test_an_unknown_format_is_refused(tmp_path):
    for bad in ("int3", "codebook16", "int16", "bf16", ""):
        with pytest.raises(InputError, match=f"format {bad} does not exist. known: fp32, fp16, int8, int4"):
            write_rows(tmp_path / "rows", pieces_of(4), bad, 4)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    keys, rows = np.uint64([1, 2]), np.float32([[1, 2], [np.nan, 0]])
    for format in FORMATS:
        with pytest.raises(InputError, match="not finite in row 1"):
            write_rows(tmp_path / "rows", [(0, keys, rows)], format, 2)
