"""Detection, embedding and search on a GPU, with pixels that stay on the card.

The arithmetic is written once, in ``keras.ops`` with fixed capacities; :mod:`worker.faces.device.runtimes` compiles it
for TensorFlow, JAX or torch. Modules that import Keras are imported only after that module has chosen its backend.
"""
