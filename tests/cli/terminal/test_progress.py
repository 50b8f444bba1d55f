"""Progress bars on a terminal, and reports of runs that fit a screen."""

import io
from contextlib import redirect_stderr, redirect_stdout

from pipeline.cli.terminal.output import print_result
from pipeline.cli.terminal.progress import ProgressBars
from pipeline.cli.terminal.run_report import summarize_training
from tests.support.command.command_line import call, feed, make_events, make_shop, springtide

HOUR_MS = 3_600_000
START_MS = 1_767_225_600_000


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bars_are_drawn_on_a_terminal_only():
    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        with redirect_stderr(stream), ProgressBars() as bars:
            bars.add("join, records")(3, 7)
            bars.follow("train, records", lambda: (5, 9))
        assert ("join, records" in stream.getvalue()) is drawn
        assert all((text in stream.getvalue()) is drawn for text in ("3/7", "train, records", "5/9"))


def test_a_run_to_the_end_that_is_interrupted_reports_its_work_and_ends_with_130(tmp_path):
    project = make_shop(tmp_path / "shop")
    feed(project, make_events(1, 300))
    springtide(project, "run", "samples", "--until-end")
    code = (project / "model.py").read_text()
    (project / "model.py").write_text(f"import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n{code}")
    stopped = call("run", "train", "--until-end", "--project", project, "--json")
    assert stopped.code == 130
    assert stopped.result["samples"] < 300
    assert stopped.err.splitlines() == [
        "stopping after the current round",
        "interrupted before the end of the logs; the next run continues",
    ]
    (project / "model.py").write_text(code)
    terminal = Terminal()
    with redirect_stderr(terminal):
        from pipeline.configuration.project import Project
        from pipeline.logs.open import open_log
        from pipeline.trainer.run.in_process import TrainJob

        opened = Project.open(project)
        job = TrainJob(opened, open_log(opened))
        job.round()
        done, known = job.progress()
        job.close()
    assert done == known > 0


def test_the_text_of_a_report_lists_the_last_hours_and_no_raw_milliseconds():
    scores = {"samples": 7, "normalized_entropy": 0.9}
    windows = [{"start_ms": START_MS + hour * HOUR_MS, **scores} for hour in range(288)]
    shard = {
        "shard": 0,
        "version": "g0/s0-of-1/1",
        "position": [1, 2],
        "samples_seen": 7,
        "log_time_ms": START_MS,
        "rows": {"user": 3},
        "validation": {"[b]": {"total": scores, "windows": windows}},
    }
    out = io.StringIO()
    with redirect_stdout(out):
        print_result(summarize_training({"samples": 7, "batches": 1, "commits": 1, "shards": [shard]}), as_json=False)
    text = out.getvalue()
    assert len(text.splitlines()) < 24
    assert "hour from 2026-01-12T23:00:00Z" in text
    assert "2026-01-01T00:00:00Z" in text  # log time
    assert "[b]" in text
    assert str(START_MS)[:8] not in text
