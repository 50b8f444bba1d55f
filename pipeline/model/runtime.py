"""TensorFlow and Keras, loaded quietly and made deterministic. Everything in this package imports them from here.

On a machine without a GPU, TensorFlow writes a page of messages to stderr before any log level takes effect. They are
dropped; everything else that is written there meanwhile is passed on.
"""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.configuration.environment import quiet_tensorflow

_NOISE = re.compile(rb"WARNING: All log messages before|[IW]\d{4} |[IWE]\d{4} .*cuda")


@contextmanager
def _without_noise() -> Iterator[None]:
    """Inside, stderr is captured, also that of C++; afterwards it is passed on without the messages of TensorFlow."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            with suppress(OSError):  # the reader of stderr has ended
                for line in written:
                    if not _NOISE.match(line):
                        os.write(2, line)


quiet_tensorflow()
with _without_noise():
    import keras
    import tensorflow as tf
    from keras.src.backend.common import global_state
    from keras.src.random import seed_generator

    tf.config.list_physical_devices()  # looks for a GPU, with another page of messages


def prepare_runtime(threads: int) -> None:
    """Make TensorFlow deterministic, with `threads` threads; the first model of a process decides the number."""
    tf.config.experimental.enable_op_determinism()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        return  # already running, with the number of the first call


def graph_function(function: Callable[..., Any], **options: Any) -> Any:
    """`tf.function` without AutoGraph: it converts no layer of Keras, and takes longer than tracing."""
    return tf.function(function, autograph=False, **options)


@contextmanager
def names_of_its_own() -> Iterator[None]:
    """Inside, Keras numbers unnamed layers as in a new process: `dense`, `dense_1`, …

    Otherwise the numbers go on from the models that the thread has built before, and TensorFlow, which orders the
    operations of a step by name (`multiply_10` before `multiply_9`), adds up gradients in another order.
    """
    numbers = global_state.get_global_attribute(_NAME_NUMBERS)
    global_state.set_global_attribute(_NAME_NUMBERS, None)
    try:
        yield
    finally:
        global_state.set_global_attribute(_NAME_NUMBERS, numbers)


_NAME_NUMBERS = "object_name_uids"

__all__ = ["graph_function", "keras", "names_of_its_own", "prepare_runtime", "seed_generator", "tf"]
