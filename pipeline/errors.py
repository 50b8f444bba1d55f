"""Every error springtide raises on purpose, one class per thing a caller can do about it.

SpringtideError
├── ConfigError            the configuration or the user's model is wrong: edit it
│   └── ModelError         the user's model does not fit the configuration
├── InputError             a file or request is wrong: correct it
├── LogError               a log cannot serve what was asked
│   ├── LogReplacedError   a topic was deleted and made again: choose where to start
│   └── OffsetError        an offset is no longer, or not yet, there
├── FencedError            somebody else took over: stop
├── DamagedError           bytes do not match their checksum: restore or heal
├── DeltaError             a delta does not fit the version it meets
├── VersionError           a version cannot be stored or is not there: make room, or name another
├── MigrationError         configuration or model changed: pass --migrate
├── HaltedError            bad data stopped the line: quarantine and resume
├── RollbackError          a rollback cannot be planned or carried out
└── ClusterError           a process of the local cluster cannot be had: see its log, or free what it needs

Messages are lower case, name the object and both values, and end in a hint: `topic clicks has 2 partitions, the
configuration says 4. hint: …`.
"""


class SpringtideError(Exception):
    """The root; `exit_code` is what the command line ends with."""

    exit_code = 1


class ConfigError(SpringtideError):
    """The configuration or the user's model is wrong: edit it."""

    exit_code = 2


class ModelError(ConfigError):
    """The user's model or feature code does not fit the configuration."""


class InputError(SpringtideError):
    """A file, a request or an argument is wrong: correct it."""

    exit_code = 3


class LogError(SpringtideError):
    """A log cannot serve what was asked."""

    exit_code = 4


class LogReplacedError(LogError):
    """A topic was deleted and made again: choose where to start."""


class OffsetError(LogError):
    """An offset is no longer, or not yet, there."""


class FencedError(SpringtideError):
    """Somebody else took over: stop."""

    exit_code = 5


class DamagedError(SpringtideError):
    """Bytes do not match their checksum: restore or heal."""

    exit_code = 6


class DeltaError(SpringtideError):
    """A delta does not fit the version it meets."""

    exit_code = 7


class MigrationError(SpringtideError):
    """Configuration or model changed: pass --migrate."""

    exit_code = 8


class HaltedError(SpringtideError):
    """Bad data stopped the line: quarantine and resume."""

    exit_code = 9


class RollbackError(SpringtideError):
    """A rollback cannot be planned or carried out."""

    exit_code = 10


class VersionError(SpringtideError):
    """A version cannot be kept or found."""

    exit_code = 11


class ClusterError(SpringtideError):
    """A process of the local cluster cannot be had: see its log, or free what it needs."""

    exit_code = 12
