"""The command `status`: jobs, join, trainer, versions and logs. Works while the log or the cluster is unavailable."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import typer

from pipeline.cli.terminal.options import HERE, AsJson, FlinkMaster, ProjectFolder, open_project
from pipeline.cli.terminal.output import print_message, print_result
from pipeline.cli.terminal.run_report import matured_scores
from pipeline.cli.terminal.values import format_age, format_size, format_time
from pipeline.configuration.project import Project
from pipeline.errors import LogError
from pipeline.flink.deployment import jobs_status
from pipeline.logs.interface.log import Log, ReadLimits
from pipeline.logs.open import open_log
from pipeline.trainer.commit.file_check import ALLOWED
from pipeline.trainer.commit.halt import kept_file
from pipeline.trainer.validation.gate.gate import GATE, STATES, state_in
from pipeline.trainer.validation.label_validation import WITHOUT_POSITIVE_HINT, labels_without_positive
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore

_LOG_TIMEOUT_S = 3.0


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(status)


def status(project: ProjectFolder = HERE, flink_master: FlinkMaster = None, as_json: AsJson = False) -> None:
    """Show jobs, offsets, lag, watermarks, versions, published levels and halts.

    If the log is unavailable, the rest is shown after a few seconds and the exit code is 4.

    Example: springtide status
    """
    opened = open_project(project, flink_master)
    log, problem = _connect_log(opened)
    status = _collect(opened, log) | {"log_problem": problem}
    print_result(status if as_json else _summarize(status, opened.clock.now_ms()), as_json)
    if problem:
        print_message(f"error: {problem}")
        raise typer.Exit(LogError.exit_code)


def _connect_log(project: Project) -> tuple[Log | None, str | None]:
    """The log, or None and the error, within seconds."""
    logs = project.config.logs
    impatient = logs.model_copy(update={"retry_timeout_s": min(logs.retry_timeout_s, _LOG_TIMEOUT_S)})
    try:
        return open_log(replace(project, config=project.config.model_copy(update={"logs": impatient}))), None
    except LogError as failure:
        return None, str(failure)


def _collect(project: Project, log: Log | None) -> dict[str, Any]:
    from pipeline.samples.run.status import join_status

    return {
        "name": project.config.name,
        "jobs": jobs_status(project, print_message),
        "join": join_status(project, log),
        **(_model(project, log) if log else _unknown_model(project.config.logs.shards)),
    }


def _unknown_model(shards: int) -> dict[str, Any]:
    """Without a log nothing is known of the ledger."""
    unknown = {"version": None, "halted": None, "lag_records": None}
    trainer = [{"shard": shard, **unknown} for shard in range(shards)]
    return {"generation": None, "trainer": trainer, "quarantines": None, "unfinished_rollbacks": None, "logs": []}


def _model(project: Project, log: Log) -> dict[str, Any]:
    """What the ledger and the topics of the log hold."""
    store = VersionStore(project, log)
    quarantines = [q for q in store.ledger.quarantines.all() if q.removed_at_ms is None]
    return {
        "generation": store.ledger.generation(),
        "trainer": [_shard(project, log, store, shard) for shard in range(project.config.logs.shards)],
        "quarantines": len(quarantines),
        "unfinished_rollbacks": len(store.ledger.unfinished_rollbacks()),
        "logs": [_topic(log, topic) for topic in log.topics()],
    }


def _topic(log: Log, topic: str) -> dict[str, Any]:
    ends = [log.end_offset(topic, partition) for partition in range(log.partitions(topic))]
    begins = [log.begin_offset(topic, partition) for partition in range(log.partitions(topic))]
    return {"topic": topic, "partitions": len(ends), "begin_offsets": begins, "end_offsets": ends}


def _shard(project: Project, log: Log, store: VersionStore, shard: int) -> dict[str, Any]:
    current, halt = store.current(shard), store.ledger.halts.get(shard)
    row: dict[str, Any] = {"shard": shard, "version": str(current) if current else None, "halted": None}
    if halt:
        kept = kept_file(project, halt.batch_file)
        row["halted"] = {"reason": halt.reason, "batch": halt.batch_file}
        row["halted"] |= {"problem": kept} if kept != halt.batch_file else {}
    topic = project.config.topics.samples
    if current is None:
        return row | {"lag_records": log.end_offset(topic, shard)}
    summary = store.ledger.version(current)
    validation: Any = store.manifest(current)["validation"]
    published = {level: store.ledger.published.latest(level, shard) for level in ("incremental", "full")}
    return row | {
        "offset": summary.offset,
        "lag_records": _lag(log, topic, shard, summary.offset),
        "log_time": format_time(summary.last_at_ms),
        "samples_seen": summary.samples_seen,
        "version_bytes": store.stored_bytes(shard),
        "version_files": len(store.ledger.chain(current)),
        "published": {level: str(pointer.id) if pointer else None for level, pointer in published.items()},
        **(_gate(project, store, current) if project.config.gate else {}),
        "validation": {name: report["total"] for name, report in validation.items()},
        "matured": {name: report["matured"] for name, report in validation.items() if "matured" in report},
        "labels_without_positive": labels_without_positive(validation, project.config.train.positive_within_samples),
    }


def _gate(project: Project, store: VersionStore, current: VersionId) -> dict[str, Any]:
    """The state of the gate as of a version, None without a gate; and the check of the file that it holds, if any."""
    stored, quality = store.outline(current).training_state.get(GATE), store.quality(current)
    row: dict[str, Any] = {"gate": None if stored is None else state_in(stored)}
    if quality.held and quality.file_check is not None:
        allowed = ALLOWED * project.config.publish.loss
        row["held_file"] = {"check": quality.file_check, "loss": quality.file_check_loss, "allowed": allowed}
    return row


def _lag(log: Log, topic: str, partition: int, offset: int) -> int:
    """Records not yet read; 0 if only gaps such as Kafka's commit markers are left."""
    end, start = log.end_offset(topic, partition), max(offset, log.begin_offset(topic, partition))
    gaps = start < end and not log.read(topic, partition, start, ReadLimits(records=1))
    return 0 if gaps else end - offset


_HELD = ("held_impressions", "pending_clicks", "undecided_clicks", "waiting_candidates")


def _summarize(status: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """The status as lines and tables that fit a screen, with readable times and sizes."""
    join, trainer = status["join"], status["trainer"]
    age = format_age(join["stored_at_ms"], now_ms)
    return {
        "name": status["name"],
        "generation": status["generation"],
        "jobs": [_job_row(job, now_ms) for job in status["jobs"]],
        "join": {
            "watermark_ms": join["watermark_ms"],
            "state": f"{format_size(join['bytes'])}, stored {age}" if join["bytes"] else None,
            **{name: join[name] for name in _HELD if name in join},
        },
        "feedbacks": [_feedback_row(kind, row) for kind, row in join["feedbacks"].items()],
        "inputs": [_input_row(name, row) for name, row in join["inputs"].items()],
        "trainer": [_trainer_row(row) for row in trainer],
        "validation": [
            {"shard": row["shard"], "label": label, **scores}
            for row in trainer
            for label, scores in row.get("validation", {}).items()
        ],
        "matured_labels": [
            {"shard": row["shard"], "label": label, "labels": period, **scores}
            for row in trainer
            for label, matured in row.get("matured", {}).items()
            for period, scores in matured_scores(matured)
        ],
        "warnings": _warnings(join, trainer),
        **{name: status[name] for name in ("quarantines", "unfinished_rollbacks", "logs")},
    }


def _warnings(join: Mapping[str, Any], trainer: list[dict[str, Any]]) -> list[str]:
    unreadable = [f"shard {shard} of the join cannot open: {problem}" for shard, problem in join["problems"].items()]
    held = [
        f"the gate of shard {row['shard']} is {row['gate']}: realtime deltas send no rows. "
        "hint: runbooks/incidents/gate.md"
        for row in trainer
        if row.get("gate") in STATES[1:]
    ]
    return [*unreadable, *held, *_held_files(trainer)] + [
        f"label {label} of shard {row['shard']} has no positive in {row['samples_seen']} samples. "
        f"hint: {WITHOUT_POSITIVE_HINT}"
        for row in trainer
        for label in row.get("labels_without_positive", ())
    ]


def _held_files(trainer: list[dict[str, Any]]) -> list[str]:
    return [
        f"a file of shard {row['shard']} is due and held: {_check_of(held)}. hint: runbooks/incidents/gate.md"
        for row in trainer
        if (held := row.get("held_file"))
    ]


def _check_of(held: Mapping[str, Any]) -> str:
    """What the check of a held file found.

    >>> _check_of({"check": "unmeasured", "loss": None, "allowed": 0.0008})
    'its check measured no loss, allowed 0.0008, and waits for a batch that observes the labels'
    """
    loss = "no loss" if held["loss"] is None else f"a loss of {held['loss']:.2g}"
    waits = "waits for a batch that observes the labels"
    why = waits if held["check"] == "unmeasured" else f"objects to the {held['check']}"
    return f"its check measured {loss}, allowed {held['allowed']:.2g}, and {why}"


def _job_row(job: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """One line per job; without a cluster only the state and the last failure."""
    stalled = "stalled" if job.get("stalled") else ""
    restart_loop = "restart loop" if job.get("restart_loop") else ""
    last = job.get("last_checkpoint")
    return {
        "job": job["job"],
        "state": ", ".join(filter(None, (job["state"], stalled, restart_loop))),
        "restarts": job.get("restarts"),
        "last checkpoint": f"{format_age(last['at_ms'], now_ms)}, {format_size(last['size_bytes'])}" if last else None,
        "last failure": job["last_failure"],
    }


def _feedback_row(kind: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {"events": kind, **row, "set_aside": sum(row["set_aside"].values())}


def _input_row(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {column: row[column] for column in ("offset", "end", "lag")}
    return {"partition": name, **numbers, "watermark": format_time(row["watermark_ms"])}


def _trainer_row(row: Mapping[str, Any]) -> dict[str, Any]:
    halted, published = row["halted"], row.get("published", {})
    return {
        "shard": row["shard"],
        "version": row["version"],
        "lag": row["lag_records"],
        "log time": row.get("log_time"),
        "samples seen": row.get("samples_seen"),
        "versions size": format_size(row["version_bytes"]) if "version_bytes" in row else None,
        "published incremental": published.get("incremental"),
        "published full": published.get("full"),
        **({"gate": row["gate"]} if "gate" in row else {}),
        "halted": f"{halted['reason']}, batch {halted.get('problem', halted['batch'])}" if halted else None,
    }
