import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from phalanx import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("default")


@parametrize_with_checks([MLPClassifier(max_iter=100), MLPRegressor(max_iter=100)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)
