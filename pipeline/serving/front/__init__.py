"""The front of a replica: the process that faces the network. It predicts nothing and imports no TensorFlow."""
