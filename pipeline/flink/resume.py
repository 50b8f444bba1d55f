"""From where a job goes on when it is submitted again: its savepoint, else its last retained checkpoint, else neither.

`state/flink/NAME.json` remembers the last submission. Neither is ever needed, for the logs alone are enough, and one
made by other releases or with another parallelism is not used: Flink would restart the job on it for ever.
"""

import json
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import TypeAdapter

from pipeline.errors import ClusterError, DamagedError
from pipeline.flink.jobs import last_checkpoint
from pipeline.flink.rest import FlinkRest
from pipeline.formats.atomic_file import write_whole


@dataclass(frozen=True)
class Submitted:
    """A job's last submission.

    Attributes:
        job: Flink's id.
        form: what its savepoints depend on.
        began: savepoint or checkpoint it was started from.
        savepoint: taken when it was stopped.
    """

    job: str
    form: str
    began: str | None = None
    savepoint: str | None = None


_STEPS = 2
"""Raised with every change of the jobs' graphs."""
_FORM = TypeAdapter(Submitted)


def form_of(parallelism: int, partitions: int) -> str:
    """What must stay the same for a savepoint to fit: it lists the partitions that are read."""
    releases = f"springtide {version('springtide')}, beam {version('apache-beam')}"
    return f"{releases}, steps {_STEPS}, parallelism {parallelism}, partitions {partitions}"


def read_submitted(folder: Path, name: str) -> Submitted | None:
    """The last submission of job `name`; None before the first. Raises DamagedError."""
    path = folder / f"{name}.json"
    try:
        return _FORM.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as failure:
        raise DamagedError(f"{path} is damaged: {failure}. hint: delete it; the job goes on from the logs") from None


def write_submitted(folder: Path, name: str, submitted: Submitted) -> None:
    """Remember a submission."""
    write_whole(folder / f"{name}.json", [json.dumps(asdict(submitted)).encode()])


def stopped_at(submitted: Submitted, savepoint: str) -> Submitted:
    """The submission once it was stopped with a savepoint."""
    return replace(submitted, savepoint=savepoint)


def resume_path(flink: FlinkRest, submitted: Submitted | None, form: str, checkpoints: str) -> str | None:
    """Where the next submission begins; None for the logs alone. `checkpoints` is the URI they are kept under."""
    if submitted is None or submitted.form != form:
        return None
    return submitted.savepoint or _retained(flink, submitted.job, checkpoints) or submitted.began


def _retained(flink: FlinkRest, job: str, checkpoints: str) -> str | None:
    try:
        known = last_checkpoint(flink, job)
    except ClusterError:
        # A JobManager that was started again has never heard of the job.
        known = None
    return known.path if known else _newest_in(checkpoints, job)


def _newest_in(checkpoints: str, job: str) -> str | None:
    """The newest whole checkpoint of the job in a folder of this machine."""
    uri = urlsplit(checkpoints)
    if uri.scheme != "file":
        return None
    whole = [path.parent for path in Path(unquote(uri.path)).glob(f"{job}/chk-*/_metadata")]
    newest = max(whole, key=lambda path: int(path.name.removeprefix("chk-")), default=None)
    return None if newest is None else newest.as_uri()
