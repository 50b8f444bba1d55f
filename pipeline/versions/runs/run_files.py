"""Values by key from the runs of several files: the face of `native/runs/run_files`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import call_native, require_array
from pipeline.arrays.types import UInt8s, UInt32s, UInt64s
from pipeline.errors import DamagedError, InputError
from pipeline.formats.container import Container
from pipeline.versions.runs.stored_run import StoredRun, filter_of


@dataclass(frozen=True)
class FoundValues:
    """What the newest file with an entry has for each of k keys.

    Attributes:
        entries: [k] `NO_ENTRY`, `VALUE` or `REMOVAL`.
        values: [k, width].
        files: [k] the number of this file, without an entry anything.
    """

    entries: UInt8s
    values: UInt8s
    files: UInt32s


@dataclass(frozen=True)
class RunFile:
    """A run of a file that is `held`, and the filter of its keys."""

    run: StoredRun
    filter: UInt8s

    @classmethod
    def open(cls, file: Container, name: str) -> "RunFile":
        """The run called `name`: reads its index and filter. Raises DamagedError."""
        return cls(StoredRun.open(file, name), file.array(filter_of(name), np.uint8))


class RunFiles:
    """Runs of several files, newest first. Thread-safe."""

    def __init__(self, files: Sequence[RunFile]) -> None:
        """Reads nothing. Raises DamagedError."""
        self._runs = [file.run for file in files]
        places = [run.file.place_in_file(run.name) for run in self._runs]
        self._descriptors, self._starts = [place[0] for place in places], [place[1] for place in places]
        self._indexes = [np.ascontiguousarray(run.blocks).view(np.uint8) for run in self._runs]
        self._filters = [file.filter for file in files]

    def find(self, keys: UInt64s, width: int) -> FoundValues:
        """What there is for `keys` [k] uint64, ascending; values have `width` bytes. Raises DamagedError."""
        require_array("keys", keys, np.uint64, ("k",))
        values, entries = np.empty((len(keys), width), np.uint8), np.empty(len(keys), np.uint8)
        numbers, reading = np.zeros(len(keys), np.uint32), np.zeros(1, np.uint32)
        try:
            call_native(
                _native.find_in_files, self._descriptors, self._starts, self._indexes, self._filters, keys, values,
                entries, numbers, reading,
            )  # fmt: skip
        except InputError as failure:
            number = int(reading[0])
            raise DamagedFileError(number, self._runs[number], str(failure)) from None
        return FoundValues(entries, values, numbers)


class DamagedFileError(DamagedError):
    """A file of several is damaged."""

    def __init__(self, number: int, run: StoredRun, problem: str) -> None:
        super().__init__(str(run.file.damaged(f"{run.name}: {problem}")))
        self.number = number
        """Of the file, from the newest on."""
