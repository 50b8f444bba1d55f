"""The Keras side: the user's dense network, one training step, its weights. TensorFlow is imported only here.

`layout`, `targets` and `weights` do not load TensorFlow; `runtime`, `build`, `dense` and `summaries` do.
"""
