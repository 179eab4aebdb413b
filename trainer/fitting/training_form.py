"""Give a network the form in which it is trained: a network in; one with the same layers and weights, but faster, out.

Keras computes batch normalization in a dozen operations, each of which reads and writes all of a layer's output: nearly
half of a training step on a CPU. TensorFlow, where it is the backend, has a single operation for it. In mixed precision
the layers compute in bfloat16, while weights and the head stay float32 (Micikevicius et al., "Mixed Precision
Training", 2018); ResNets gain from it on processors and GPUs with arithmetic for bfloat16.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer.networks.architectures import HEAD

MIXED_PRECISION = "mixed_bfloat16"


def training_form(network: keras.Model, *, mixed_precision: bool) -> keras.Model:
    """Return an uncompiled network of the same layers, with a copy of the weights in the same order."""

    def formed(layer: keras.Operation) -> keras.Operation:
        kind, config = type(layer), layer.get_config()
        # An operation that is no layer has no precision of its own: the dtype of a cast is what it returns.
        computes = isinstance(layer, keras.layers.Layer) and not isinstance(layer, keras.layers.InputLayer)
        if mixed_precision and computes and layer.name != HEAD:
            config["dtype"] = MIXED_PRECISION
        if kind is keras.layers.BatchNormalization and keras.backend.backend() == "tensorflow":
            kind = FusedBatchNormalization
        return kind.from_config(config)

    form = keras.models.clone_model(network, clone_function=formed, recursive=True)
    form.set_weights(network.get_weights())
    return form


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization over the last axis of n x H x W x C, in one operation of TensorFlow while it is trained.

    The moving variance follows the unbiased variance of each batch, as in TensorFlow 1.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return the normalized inputs; by the moving mean and variance where nothing is trained."""
        import tensorflow as tf

        if not training or not self.trainable:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            tf.convert_to_tensor(inputs),
            tf.convert_to_tensor(self.gamma),
            tf.convert_to_tensor(self.beta),
            epsilon=self.epsilon,
            is_training=True,
        )
        for moving, of_batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(self.momentum * moving.value + (1 - self.momentum) * of_batch)
        return outputs
