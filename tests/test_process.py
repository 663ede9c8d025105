"""What a worker does between two jobs."""

import subprocess
import sys

SWEPT = """
import gc, weakref
from phalanx.clusters.process import Broom

class Model:
    def __init__(self):
        self.itself = self

def swept():
    model = weakref.ref(Model())
    broom.sweep()
    assert model() is None, "a job's model is let go"
    return gc.get_freeze_count()

broom = Broom()
assert swept() == 0
import xml.dom.minidom
frozen = swept()
assert frozen > 1000
later = [Model() for _ in range(1000)]
assert swept() <= frozen, "only what comes with libraries stays for good"
"""


def test_libraries_that_a_job_has_loaded_are_not_looked_through_again():
    subprocess.run([sys.executable, "-c", SWEPT], check=True)
