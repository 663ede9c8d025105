"""The multi-layer perceptron: forward and backward pass in NumPy on preallocated buffers."""

from phalanx.models.mlp.network import MLPSpec, Network

__all__ = ["MLPSpec", "Network"]
