"""Where a job resumes when it is submitted again: its savepoint, else its last retained checkpoint, else the logs.

`state/flink/NAME.json` stores the last submission. Savepoints and checkpoints only save time: the logs are sufficient.
One of another release or parallelism is not used, because Flink would fail and restart the job on it forever.
"""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import TypeAdapter

from pipeline.cluster.flink_rest import FlinkRest
from pipeline.errors import ClusterError
from pipeline.flink.jobs import last_checkpoint
from pipeline.formats.sealed_json import SealedJson


@dataclass(frozen=True)
class LastSubmission:
    """A job's last submission.

    Attributes:
        job: Flink's job id.
        compatibility: what must be equal for its savepoints to be usable.
        started_from: the savepoint or checkpoint it was started from.
        savepoint: the savepoint taken when it was stopped.
    """

    job: str
    compatibility: str
    started_from: str | None = None
    savepoint: str | None = None


_GRAPH_VERSION = 2
"""Raised with every change of the jobs' graphs."""
_LAST_SUBMISSION = TypeAdapter(LastSubmission)
_SEALED = SealedJson("submission", 2, "delete it; the job then starts from the logs")


def compatibility_of(parallelism: int, partitions: int) -> str:
    """What must be equal for a savepoint to be usable. Savepoints list the partitions that are read."""
    releases = f"springtide {version('springtide')}, beam {version('apache-beam')}"
    return f"{releases}, steps {_GRAPH_VERSION}, parallelism {parallelism}, partitions {partitions}"


def read_last_submission(folder: Path, name: str) -> LastSubmission | None:
    """The last submission of job `name`; None before the first. Raises DamagedError."""
    path = folder / f"{name}.json"
    try:
        return _LAST_SUBMISSION.validate_python(_SEALED.read(path))
    except FileNotFoundError:
        return None
    except ValueError as failure:
        raise _SEALED.damaged(path, str(failure)) from None


def write_last_submission(folder: Path, name: str, last: LastSubmission) -> None:
    """Store the last submission of job `name`."""
    _SEALED.write(folder / f"{name}.json", asdict(last))


def resume_path(flink: FlinkRest, last: LastSubmission | None, compatibility: str, checkpoints: str) -> str | None:
    """The savepoint or checkpoint to start from; None for the logs. `checkpoints` is the URI of their folder."""
    if last is None or last.compatibility != compatibility:
        return None
    return last.savepoint or _retained_checkpoint(flink, last.job, checkpoints) or last.started_from


def _retained_checkpoint(flink: FlinkRest, job: str, checkpoints: str) -> str | None:
    try:
        known = last_checkpoint(flink, job)
    except ClusterError:
        # A restarted JobManager has no record of the job.
        known = None
    return known.path if known else _latest_in(checkpoints, job)


def _latest_in(checkpoints: str, job: str) -> str | None:
    """The job's latest complete checkpoint in a folder of this machine."""
    uri = urlsplit(checkpoints)
    if uri.scheme != "file":
        return None
    complete = [path.parent for path in Path(unquote(uri.path)).glob(f"{job}/chk-*/_metadata")]
    latest = max(complete, key=lambda path: int(path.name.removeprefix("chk-")), default=None)
    return None if latest is None else latest.as_uri()
