"""Every error that springtide raises deliberately: one class per remedy.

SpringtideError
├── ConfigError            the configuration or the user's code is wrong: edit it
│   └── ModelError         the user's model does not fit the configuration: edit either
│       └── UserCodeError  the user's function fails on some rows: correct it, or set the rows aside
├── InputError             a file, a request or an argument is wrong: correct it
│   └── RowError           one row of a batch is wrong: correct it, or set it aside
├── LogError               a log cannot do what was requested: follow the hint
│   ├── LogReplacedError   a topic was deleted and created again: choose where to start
│   └── OffsetError        an offset is not in the log: choose another
├── FencedError            another writer or a rollback has taken over: stop, or open the shard on the new generation
├── DamagedError           bytes do not match their checksum or format: restore them
│   └── RecordError        a record of our own topic is foreign or damaged: quarantine its offset, or restore it
├── DeltaError             a delta does not fit the served version: apply another, or reload from the files
├── VersionError           a version cannot be stored or does not exist: make room, or choose another
│   └── FilesError         the store of files refuses, or is out of reach: check its address and the credentials
├── MigrationError         the configuration or model has changed: pass --migrate
├── HaltedError            bad data halted the trainer: quarantine it and resume
├── RollbackError          a rollback cannot be planned or completed: follow the hint
└── ClusterError           a process of the local cluster cannot start: read its log, or free what it needs

Messages are lower case, name the object and both values, and end in a hint or a command: `topic clicks has 2
partitions, the configuration wants 4. hint: …`.
"""


class SpringtideError(Exception):
    """The root of all errors; `exit_code` is the exit code of the command line."""

    exit_code = 1


class ConfigError(SpringtideError):
    """The configuration or the user's code is wrong: edit it."""

    exit_code = 2


class ModelError(ConfigError):
    """The user's model or feature code does not fit the configuration: edit either."""


class UserCodeError(ModelError):
    """The user's function fails on some rows: correct it, or set the rows aside."""

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row
        """The first row on which it fails alone; None if there is no such row."""


class InputError(SpringtideError):
    """A file, a request or an argument is wrong: correct it."""

    exit_code = 3


class RowError(InputError):
    """One row of a batch is wrong: correct it, or set it aside."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


class LogError(SpringtideError):
    """A log cannot do what was requested, because it is unavailable for example: follow the hint."""

    exit_code = 4


class LogReplacedError(LogError):
    """A topic was deleted and created again: choose where to start."""


class OffsetError(LogError):
    """An offset is before the begin or after the end of the log: choose another."""


class FencedError(SpringtideError):
    """Another writer or a rollback has taken over the shard or partition: stop, or open it on the new generation."""

    exit_code = 5


class DamagedError(SpringtideError):
    """Bytes do not match their checksum or format: restore them."""

    exit_code = 6


class RecordError(DamagedError):
    """A record of a topic that springtide writes is foreign or damaged: quarantine its offset, or restore it.

    Attributes:
        topic: the record's topic.
        partition: its partition, which is the shard too.
        offset: its offset.
        value: its bytes.
        problem: what is wrong with it.
        stop: the offset after the last foreign record in a row; `offset + 1` for one alone.
    """

    def __init__(
        self, topic: str, partition: int, offset: int, value: bytes, problem: object, stop: int | None = None
    ) -> None:
        end = offset + 1 if stop is None else stop
        command = f"springtide quarantine add --shard {partition} --offsets {offset}..{end}"
        others = "" if end == offset + 1 else f"; no record up to offset {end - 1} can be read"
        super().__init__(f"topic {topic}, partition {partition}, offset {offset}: {problem}{others}. run: {command}")
        self.topic, self.partition, self.offset, self.value = topic, partition, offset, value
        self.problem, self.stop = str(problem), end


class DeltaError(SpringtideError):
    """A delta does not fit the served version: apply another, or reload from the files."""

    exit_code = 7


class MigrationError(SpringtideError):
    """The configuration or model has changed since the version was written: pass --migrate."""

    exit_code = 8


class HaltedError(SpringtideError):
    """Bad data halted the trainer: quarantine it and resume."""

    exit_code = 9


class RollbackError(SpringtideError):
    """A rollback cannot be planned or completed: follow the hint."""

    exit_code = 10


class VersionError(SpringtideError):
    """A version or file cannot be stored, or a version does not exist: make room, or choose another."""

    exit_code = 11


class FilesError(VersionError):
    """The store of files refuses, or is out of reach: check its address and the credentials."""


class ClusterError(SpringtideError):
    """A process of the local cluster cannot start: read its log, or free the port or memory it needs."""

    exit_code = 12
