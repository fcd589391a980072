"""Fully connected target networks without biases: those of GPM and WSN on Permuted MNIST."""

from __future__ import annotations

from methods.networks import mlp

SUFFIX = "-nobias"


def build(name: str, input_shape: tuple[int, ...], n_outputs: int) -> mlp.MLP:
    """Build `mlp-100-100-nobias`: the MLP `mlp-100-100` with weights alone, in its output layer too."""
    network = mlp.build(name.removesuffix(SUFFIX), input_shape, n_outputs)
    for layer in network.layers:
        layer.register_parameter("bias", None)
    return network
