"""A worker opens its shards in threads of their own: one loads the model while another imports."""

import sys
import threading
from types import ModuleType

from pipeline.features.user_code import load_function


def import_and_forget(done: threading.Event) -> None:
    """Add modules and remove them again, as imports do."""
    while not done.is_set():
        names = [f"imported_meanwhile_{number}" for number in range(50)]
        for name in names:
            sys.modules[name] = ModuleType(name)
        for name in names:
            del sys.modules[name]


def test_a_model_is_loaded_while_another_thread_imports(tmp_path):
    (tmp_path / "model.py").write_text("def build(inputs):\n    return inputs\n")
    before, done = sys.getswitchinterval(), threading.Event()
    other = threading.Thread(target=import_and_forget, args=(done,))
    sys.setswitchinterval(1e-6)
    other.start()
    try:
        for _ in range(100):
            assert load_function(tmp_path, "model:build").call("inputs") == "inputs"
    finally:
        done.set()
        other.join()
        sys.setswitchinterval(before)
