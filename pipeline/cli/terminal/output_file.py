"""Files that commands write with `--out`: a file appears complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import InputError


@contextmanager
def output_file(out: Path) -> Iterator[Path]:
    """A path to write to; it becomes `out` once it is written. Raises InputError if it cannot be."""
    temporary = out.with_name(out.name + ".part")
    try:
        yield temporary
        temporary.replace(out)
    except OSError as failure:
        reason = os.strerror(failure.errno) if failure.errno else failure
        raise InputError(f"{out} cannot be written: {reason}. hint: choose another --out") from None
    finally:
        temporary.unlink(missing_ok=True)
