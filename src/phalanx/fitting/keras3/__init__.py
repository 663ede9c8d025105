"""Keras models: from the arguments of `model.fit` to a job, and back into the user's model."""
