"""Rules that import-linter cannot check: which modules use the native core, and what the native core includes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INTERFACES = {
    "pipeline/admission/sketch.py",
    "pipeline/arrays/gather.py",
    "pipeline/arrays/keys.py",
    "pipeline/features/pooling.py",
    "pipeline/ingest/files/csv_file.py",
    "pipeline/logs/events/avro_events.py",
    "pipeline/logs/kafka/record_batches.py",
    "pipeline/publish/price/priced_rows.py",
    "pipeline/publish/price/withheld.py",
    "pipeline/recall/best_items.py",
    "pipeline/recall/item_rows.py",
    "pipeline/recall/item_tree.py",
    "pipeline/recall/scan_index.py",
    "pipeline/samples/held/index.py",
    "pipeline/samples/held/rows.py",
    "pipeline/trainer/batch/unique.py",
    "pipeline/trainer/items/frequency.py",
    "pipeline/trainer/tables/model_input.py",
    "pipeline/trainer/tables/table.py",
    "pipeline/versions/deltas/quantizer.py",
    "pipeline/versions/deltas/coded_rows.py",
    "pipeline/versions/deltas/rounding.py",
    "pipeline/versions/deltas/served_view.py",
    "pipeline/versions/runs/key_filter.py",
    "pipeline/versions/runs/run_files.py",
    "pipeline/versions/runs/sorted_run.py",
}
SOURCES = [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "native").rglob("*.cc"), *(ROOT / "native").rglob("*.h")]


def text(path):
    return path.read_text(encoding="utf-8")


def name(path):
    return path.relative_to(ROOT).as_posix()


def test_each_native_component_has_one_python_interface():
    users = {name(path) for path in SOURCES if path.suffix == ".py" and "import pipeline._native" in text(path)}
    assert users == INTERFACES


def test_only_the_bindings_include_nanobind():
    users = [name(path) for path in SOURCES if path.suffix != ".py" and "nanobind" in text(path)]
    assert all(path.startswith("native/bindings/") for path in users)


def test_simd_kernels_include_only_headers_without_shared_code():
    """The linker keeps one copy of an inline function for all levels, which could be the one compiled for AVX-512."""
    harmless = {"<cstddef>", "<cstdint>", "<cstring>", '"simd/simd.h"'}
    kernels = [path for path in SOURCES if name(path).startswith("native/simd/kernels/")]
    lines = [line.split() for path in kernels for line in text(path).splitlines() if line.startswith("#include")]
    assert {included for _, included in lines if not included.startswith('"simd/kernels/')} == harmless


@pytest.mark.parametrize("words", ["time.time(", "time.sleep(", "datetime.now(", "os.environ", "random.random("])
def test_time_randomness_and_environment_are_read_in_one_module(words):
    allowed = {"pipeline/process/clock.py", "pipeline/configuration/environment.py"}
    assert {name(path) for path in SOURCES if path.suffix == ".py" and words in text(path)} <= allowed


def test_no_file_is_longer_than_five_hundred_lines():
    files = [*SOURCES, *(ROOT / "tests").rglob("*.py")]
    assert [name(path) for path in files if len(text(path).splitlines()) > 500] == []


def test_submitting_jobs_does_not_import_tensorflow():
    modules = "pipeline.cli.app, pipeline.flink.submit, pipeline.samples.run.on_flink, pipeline.trainer.run.on_flink"
    code = f"import sys, {modules}; print(*(m for m in ('tensorflow', 'keras', 'matplotlib') if m in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.split() == []
