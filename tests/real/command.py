"""Runs the command line in a new process, and sorts samples for comparison."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

REPO = Path(__file__).parents[2]


def springtide(project: Path, *arguments: str):
    """Run a command on `project` and return its JSON."""
    command = [sys.executable, "-m", "pipeline.cli.main", *arguments, "--project", str(project), "--json"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


def in_order(samples: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """`columns` of samples, sorted by the columns that identify them; missing values become None."""
    frame = samples[columns].astype(object).where(samples[columns].notna(), None)
    return frame.sort_values(["impression_at", *columns[:3], "kind"], kind="stable").reset_index(drop=True)


def assert_same_samples(got: pd.DataFrame, wanted: pd.DataFrame, columns: list[str]) -> None:
    """Assert that both contain the same rows with the same multiplicity."""
    assert len(got) == len(wanted)
    got, wanted = in_order(got, columns), in_order(wanted, columns)
    for name in columns:
        wrong = [i for i, (a, b) in enumerate(zip(got[name], wanted[name], strict=True)) if a != b]
        assert not wrong, (
            f"{name} of {len(wrong)} rows, first {got.loc[wrong[0]].to_dict()}, {wanted.loc[wrong[0]].to_dict()}"
        )
