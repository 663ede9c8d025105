"""`phalanx.fit`, `evaluate` and `predict`: a torch module or a Keras model, by several workers."""

from phalanx.fitting.door import evaluate, fit, predict

__all__ = ["evaluate", "fit", "predict"]
