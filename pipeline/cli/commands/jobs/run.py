"""Commands that run the jobs, a replica or the demo. Ctrl-C stops them cleanly; the next run continues."""

import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.interrupts import INTERRUPTED, end_at_interrupt, ending_overdue
from pipeline.cli.terminal.options import HERE, AsJson, DryRun, FlinkMaster, ProjectFolder, UntilEnd, open_project
from pipeline.cli.terminal.output import print_message, print_result, user_output_on_stderr
from pipeline.cli.terminal.progress import ProgressBars
from pipeline.cli.terminal.run_report import summarize_training
from pipeline.cli.terminal.unblocked_stream import without_blocking
from pipeline.configuration.deployment.address import url_of
from pipeline.configuration.project import Project
from pipeline.demo.folder import plan_cascade, plan_folders
from pipeline.errors import InputError
from pipeline.flink import deployment
from pipeline.logs.interface.log import Log
from pipeline.logs.open import open_log
from pipeline.telemetry import exporter


class RunnerName(StrEnum):
    """Where the jobs run."""

    LOCAL = "local"
    FLINK = "flink"


Migrate = Annotated[
    bool, typer.Option("--migrate", help="Continue with a changed configuration: changed tables start empty.")
]
Runner = Annotated[RunnerName, typer.Option("--runner", help="In this process or on the cluster at flink.rest.")]
FromLogs = Annotated[bool, typer.Option("--from-logs", help="On Flink: ignore savepoints and checkpoints.")]
Part = Annotated[
    str | None, typer.Option("--part", help="The part of the model to serve, in place of serving.part.", metavar="NAME")
]
_IDLE_WAIT_S = 0.05


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(
        help="Run the jobs in this process or on Flink. They follow the logs until stopped.", no_args_is_help=True
    )
    group.command("samples")(samples)
    group.command("train")(train)
    group.command("all")(run_all)
    app.add_typer(group, name="run")
    app.command()(replica)
    app.command()(demo)


def samples(
    project: ProjectFolder = HERE,
    until_end: UntilEnd = False,
    runner: Runner = RunnerName.LOCAL,
    flink_master: FlinkMaster = None,
    from_logs: FromLogs = False,
    as_json: AsJson = False,
) -> None:
    """Join impressions and feedback into the samples log.

    Example: springtide run samples --until-end
    """
    if _submit_if_on_flink(project, ("samples",), runner, OnFlink(flink_master, from_logs, until_end), as_json):
        return
    from pipeline.samples.run.in_process import run_samples

    opened = _open_measured(project, "samples")
    with _until_signalled(opened, until_end) as stop, ProgressBars() as bars:
        show = bars.add("join, records")
        report = run_samples(opened, open_log(opened), until_end=until_end, stop=stop, progress=show)
    print_result(asdict(report), as_json)
    _check_complete(until_end, stop)


def train(
    project: ProjectFolder = HERE,
    until_end: UntilEnd = False,
    migrate: Migrate = False,
    runner: Runner = RunnerName.LOCAL,
    flink_master: FlinkMaster = None,
    from_logs: FromLogs = False,
    as_json: AsJson = False,
) -> None:
    """Train on the samples log, commit versions and publish them.

    Example: springtide run train --until-end
    """
    if _submit_if_on_flink(project, ("train",), runner, OnFlink(flink_master, from_logs, until_end, migrate), as_json):
        return
    from pipeline.trainer.run.in_process import TrainJob

    opened = _open_measured(project, "train")
    with (
        _until_signalled(opened, until_end) as stop,
        ProgressBars() as bars,
        closing(TrainJob(opened, open_log(opened), stop=stop, migrate=migrate)) as job,
    ):
        bars.follow("train, records", job.progress)
        if until_end:
            job.round()
        else:
            job.follow()
        report = asdict(job.report())
    print_result(report if as_json else summarize_training(report), as_json)
    _check_complete(until_end, stop)


def run_all(
    project: ProjectFolder = HERE,
    until_end: UntilEnd = False,
    migrate: Migrate = False,
    runner: Runner = RunnerName.LOCAL,
    flink_master: FlinkMaster = None,
    from_logs: FromLogs = False,
    as_json: AsJson = False,
) -> None:
    """Run the join and the trainer, alternating in one process or in parallel on Flink.

    Example: springtide run all --runner flink
    """
    options = OnFlink(flink_master, from_logs, until_end, migrate)
    if _submit_if_on_flink(project, deployment.JOBS, runner, options, as_json):
        return
    opened = _open_measured(project, "all")
    log = open_log(opened)
    with _until_signalled(opened, until_end) as stop:
        report = _rounds_of_both(opened, log, stop, until_end, migrate)
    shown = report if as_json else report | {"train": summarize_training(report["train"])}
    print_result(shown, as_json)
    _check_complete(until_end, stop)


def replica(project: ProjectFolder = HERE, part: Part = None, as_json: AsJson = False) -> None:
    """Serve predictions over HTTP and apply deltas. The API is that of TensorFlow Serving.

    Example: springtide replica --project shop
    """
    from pipeline.serving.http import serve

    with without_blocking():
        opened = _serving(_open_measured(project, "replica"), part)
        host, name = opened.config.serving.host, opened.config.name

        def listening(port: int, ready: bool) -> None:
            print_message(f"serving {url_of(host, port)}/v1/models/{name}:predict")
            print_result({"listening": True, "ready": ready, "host": host, "port": port}, as_json)
            if not ready:
                print_message("predictions are refused until the trainer has committed a version")

        def first_version(version: str) -> None:
            print_message(f"the first version is served: {version}")
            if not as_json:  # which is one object
                print_result({"ready": True}, as_json)

        with _until_signalled(opened, until_end=False, stopping="stopping") as stop:
            serve(opened, open_log(opened), stop, listening, first_version)


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the plot and the project.")] = Path("demo-out"),
    cascade: Annotated[bool, typer.Option("--cascade", help="Recall, coarse and fine ranker of one model.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline on a simulated marketplace, with bad data and a rollback, and plot the result.

    With --cascade, items are recalled and ranked for users in three stages instead, and clicks change each of them.

    Example: springtide demo --out demo-out
    """
    if dry_run:
        print_result(plan_cascade(out) if cascade else plan_folders(out), as_json)
        return
    if cascade:
        from pipeline.demo.cascade.run import run_cascade

        print_result(run_cascade(out, print_message), as_json)
        return
    from pipeline.demo.run import run_demo

    print_result(run_demo(out, print_message), as_json)


def _open_measured(folder: Path, process: str) -> Project:
    """The project in `folder`; starts the metrics endpoint of this process if `[telemetry]` configures one."""
    project = open_project(folder)
    port = exporter.start_exporter(project, process)
    if port is not None:
        print_message(f"metrics at {url_of(project.config.telemetry.host, port)}/metrics")
    return project


def _serving(project: Project, part: str | None) -> Project:
    """The project with `serving.part` set to `part`, if given. Raises InputError for an unknown part."""
    if part is None:
        return project
    serving = project.config.serving.model_copy(update={"part": project.config.part(part).name})
    return replace(project, config=project.config.model_copy(update={"serving": serving}))


@dataclass(frozen=True)
class OnFlink:
    """Options of a run on Flink."""

    master: str | None
    from_logs: bool
    until_end: bool
    migrate: bool = False


def _submit_if_on_flink(
    folder: Path, jobs: tuple[str, ...], runner: RunnerName, options: OnFlink, as_json: bool
) -> bool:
    """Submit the jobs if they run on Flink, and return once they run; false if they run in this process."""
    if runner is not RunnerName.FLINK:
        _check_local(options)
        return False
    if options.migrate:
        raise InputError("--migrate needs --runner local. run: springtide run train --until-end --migrate")
    if options.until_end:
        raise InputError("--until-end needs --runner local: jobs on Flink follow the logs. hint: leave one out")
    opened = open_project(folder, options.master)
    print_result({"jobs": deployment.submit_jobs(opened, jobs, options.from_logs, print_message)}, as_json)
    return True


def _check_local(options: OnFlink) -> None:
    """Raise InputError for options that only apply to Flink."""
    for option, given in (("--flink-master", options.master is not None), ("--from-logs", options.from_logs)):
        if given:
            raise InputError(
                f"{option} needs --runner flink, got --runner local. hint: change the runner, or leave {option} out"
            )


@contextmanager
def _until_signalled(
    project: Project, until_end: bool, stopping: str = "stopping after the current round"
) -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set. A second Ctrl-C ends the process at once, any signal after `stop_within_s`.

    What the user's code prints inside goes to stderr.
    """
    stop = threading.Event()
    if not until_end:
        print_message("following the logs; press Ctrl-C to stop")

    with ending_overdue(project.config.stop_within_s, project.root) as end_later, user_output_on_stderr():

        def end(number: int, frame: Any) -> None:
            print_message(stopping)
            if not stop.is_set():
                end_later()
            stop.set()
            end_at_interrupt()

        previous = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield stop
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _rounds_of_both(
    project: Project, log: Log, stop: threading.Event, until_end: bool, migrate: bool
) -> dict[str, Any]:
    """Alternate join and trainer: each round trains on the samples it has joined."""
    from pipeline.samples.run.in_process import SamplesJob
    from pipeline.trainer.run.in_process import TrainJob

    with (
        closing(SamplesJob(project, log, stop=stop)) as join,
        closing(TrainJob(project, log, stop=stop, migrate=migrate)) as trainer,
        ProgressBars() as bars,
    ):
        show = bars.add("join, records")
        bars.follow("train, records", trainer.progress)
        while not stop.is_set():
            joined = join.catch_up(show)
            learned = trainer.round() if until_end else trainer.round_or_wait()
            if until_end:
                break
            if not joined and not learned:
                project.clock.wait(_IDLE_WAIT_S)
        return {"samples": asdict(join.report()), "train": asdict(trainer.report())}


def _check_complete(until_end: bool, stop: threading.Event) -> None:
    """End with the exit code of an interruption if a run was to reach the end of the logs, and may not have."""
    if until_end and stop.is_set():
        print_message("interrupted before the end of the logs; the next run continues")
        raise typer.Exit(INTERRUPTED)
