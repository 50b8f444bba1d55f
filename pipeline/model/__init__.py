"""The Keras side: the user's dense network, one training step, its weights. TensorFlow is imported only here.

Modules that import `runtime` load TensorFlow; the others do not.
"""
