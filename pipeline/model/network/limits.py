"""What Keras allows and training cannot honour: named when the model is built, instead of being ignored.

Regularisers, `add_loss`, constraints, frozen layers, random seeds, layers of another float type and mixed precision are
honoured; see `step`.
"""

from pipeline.model.runtime import keras

_TRAINING_METHODS = ("train_step", "compute_loss", "compute_metrics", "fit")
_TYPES = ("float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def problem_of(model: keras.Model) -> str | None:
    """What the model configures about training that springtide ignores; None if nothing."""
    if getattr(model, "compiled", False):
        return (
            "is compiled, which has no effect: springtide trains it by its own step. hint: leave out compile(); the "
            "learning rate is model.learning_rate in springtide.toml"
        )
    # Keras's own classes lie in keras.src; a user's class is recognised by where its methods were defined.
    for name in _TRAINING_METHODS:
        method = getattr(type(model), name, None)
        if method is not None and not str(getattr(method, "__module__", "keras")).startswith("keras."):
            return f"defines {name}, which is never called: springtide trains it by its own step. hint: use add_loss"
    return None


def problem_of_types(model: keras.Model) -> str | None:
    """A type of a variable or computation that cannot be trained or stored; None if there is none."""
    for variable in model.variables:
        if str(variable.dtype) not in _TYPES:
            return (
                f"has variable {variable.path} of type {variable.dtype}, wanted float32 or float64. "
                "hint: a mixed policy keeps variables in float32"
            )
    for layer in model._flatten_layers(include_self=False):
        if str(layer.compute_dtype) == "float16":
            return (
                f"computes layer {layer.name} in float16, in which small gradients vanish. "
                "hint: mixed_bfloat16, or leave the dtype out"
            )
    return None
