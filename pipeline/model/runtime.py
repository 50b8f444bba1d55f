"""TensorFlow and Keras, loaded quietly and made deterministic. Everything in this package takes them from here.

On a machine without a GPU, TensorFlow writes a page about it to stderr before any log level counts; that talk is left
out, everything else that appears there meanwhile is passed on.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.configuration.environment import quiet_tensorflow

_TALK = re.compile(rb"WARNING: All log messages before|[IW]\d{4} |[IWE]\d{4} .*cuda")


@contextmanager
def _without_talk() -> Iterator[None]:
    """Inside, what C++ writes to stderr is kept back; afterwards it is passed on without TensorFlow's greetings."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            written.seek(0)
            for line in written:
                if not _TALK.match(line):
                    os.write(2, line)


quiet_tensorflow()
with _without_talk():
    import keras
    import tensorflow as tf
    from keras.src.random import seed_generator

    tf.config.list_physical_devices()  # looks for a GPU, with another page of talk


def prepare_runtime(threads: int) -> None:
    """Make TensorFlow deterministic, with so many threads. The first model of a process decides the number."""
    tf.config.experimental.enable_op_determinism()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        return  # already running, with the number it started with


__all__ = ["keras", "prepare_runtime", "seed_generator", "tf"]
