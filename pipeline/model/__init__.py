"""The Keras side: the user's dense network, one training step, its weights. TensorFlow is imported only here.

`layout`, `targets` and `weights` work without TensorFlow; `runtime`, `build` and `dense` load it.
"""
