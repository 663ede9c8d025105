"""What a step frees, the next step takes again."""

import platform
import subprocess
import sys

import pytest

FAULTS_OF_A_STEP = """
import resource, sys
import numpy as np
from phalanx.clusters.heap import keep_freed_memory

def step():
    activations = [np.ones(3 << 17) for _ in range(16)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "kept":
    keep_freed_memory()
step()
before = faults()
step()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's allocator")
def test_a_step_touches_the_pages_of_the_step_before():
    pages = 16 * 3 * 256  # of 4 KiB, in sixteen arrays of 3 MiB
    assert _faults_of_a_step("given back") > pages / 2  # else the module has nothing to mend
    assert _faults_of_a_step("kept") < pages / 20


def _faults_of_a_step(memory: str) -> int:
    command = [sys.executable, "-c", FAULTS_OF_A_STEP, memory]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


SWEPT = """
import gc, weakref
from phalanx.clusters.heap import Garbage

class Model:
    def __init__(self):
        self.itself = self

def swept():
    model = weakref.ref(Model())
    garbage.collect()
    assert model() is None, "a job's model is let go"
    return gc.get_freeze_count()

garbage = Garbage()
assert swept() == 0
import xml.dom.minidom
frozen = swept()
assert frozen > 1000
later = [Model() for _ in range(1000)]
assert swept() <= frozen, "only what comes with libraries stays for good"
"""


def test_libraries_that_a_job_has_loaded_are_not_looked_through_again():
    subprocess.run([sys.executable, "-c", SWEPT], check=True)
