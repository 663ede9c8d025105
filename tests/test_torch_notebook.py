"""A notebook: classes of its cells go to the workers, which stay warm from cell to cell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import phalanx

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

DEFINE = """
import torch, phalanx
from torch import nn

x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
y = (x[:, 0] > 0).long()

class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.2), nn.Linear(8, 2))

    def forward(self, x):
        return scaled(self.layers(x))

def scaled(x):
    return factor * x

factor = 2.0
"""
TRAIN = """
def trained(workers):
    torch.manual_seed(0)
    return phalanx.fit(Mine(), (x, y), loss=nn.CrossEntropyLoss(), workers=workers, shards=2,
                       epochs=2, batch_size=16)

run = trained(2)
print(run.workers, run.digest)
"""
AGAIN = """
from phalanx.clusters import pool
before = [member.pid for member in pool._pool.members]
again = trained(2)
print(again.digest)
print([member.pid for member in pool._pool.members] == before)
print(trained(1).digest)
"""
CHANGED = """
factor = 3.0
print(trained(2).digest)
print(trained(1).digest)
phalanx.shutdown()
"""


EXECUTE = """
import sys, nbclient, nbformat
from ipykernel.kernelspec import install

folder = sys.argv[1]
install(prefix=folder, kernel_name="mine")
notebook = nbformat.read(f"{folder}/notebook.ipynb", as_version=4)
nbclient.NotebookClient(notebook, timeout=120, kernel_name="mine").execute()
nbformat.write(notebook, f"{folder}/notebook.ipynb")
"""


def executed(folder, sources):
    """What the cells of a notebook print, run by this interpreter's kernel."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    path = folder / "notebook.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    source = str(Path(phalanx.__file__).parent.parent)
    settings = {
        "PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")])),
        "JUPYTER_PATH": str(folder / "share" / "jupyter"),
        "JUPYTER_DATA_DIR": str(folder),
        "IPYTHONDIR": str(folder),
    }
    command = [sys.executable, "-c", EXECUTE, str(folder)]
    made = subprocess.run(
        command, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    outputs = [cell.outputs for cell in nbformat.read(path, as_version=4).cells]
    assert all(o.get("name") == "stdout" for several in outputs for o in several), outputs
    return ["".join(o.text for o in several).split() for several in outputs]


def test_a_class_of_a_cell_is_trained_by_workers_that_stay(tmp_path):
    _, first, again, changed = executed(tmp_path, (DEFINE, TRAIN, AGAIN, CHANGED))
    workers, digest = first
    assert workers == "2"
    assert again == [digest, "True", digest]
    assert len(changed[0]) == 64
    assert changed[0] == changed[1] != digest, "what a later cell changes is not heeded"
