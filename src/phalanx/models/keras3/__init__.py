"""Keras 3 models, computed by the torch backend in the workers whatever backend the caller has."""
