"""scikit-learn's MLPClassifier and MLPRegressor, trained by any number of workers."""

from phalanx.estimators.classifier import MLPClassifier
from phalanx.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
