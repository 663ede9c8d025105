"""scikit-learn's own tests of its MLP, run against these classes."""

from pathlib import Path

import pytest
import sklearn.neural_network

pytestmark = pytest.mark.filterwarnings("default")

LEFT_OUT = {
    "test_gradient": "calls the private _loss_grad_lbfgs; test_gradients.py does the same check",
}
OLD = "from sklearn.neural_network import MLPClassifier, MLPRegressor"
NEW = "from phalanx import MLPClassifier, MLPRegressor"


@pytest.fixture
def global_random_seed():
    """What scikit-learn's own conftest gives by default."""
    return 42


def their_tests():
    path = Path(sklearn.neural_network.__file__).parent / "tests" / "test_mlp.py"
    source = path.read_text()
    assert source.count(OLD) == 1
    names: dict[str, object] = {"__name__": "their_tests"}
    exec(compile(source.replace(OLD, NEW), path, "exec"), names)
    return {name: value for name, value in names.items() if name.startswith("test_")}


THEIRS = their_tests()
assert set(LEFT_OUT) <= set(THEIRS)
assert len(THEIRS) >= 40
globals().update({name: test for name, test in THEIRS.items() if name not in LEFT_OUT})
