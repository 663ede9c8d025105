"""A notebook: classes of its cells go to the workers, which stay warm from cell to cell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import phalanx

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
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
phalanx.shutdown()
"""


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A kernel of this interpreter, whichever are installed for the user."""
    source = str(Path(phalanx.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    from ipykernel.kernelspec import install

    install(prefix=str(tmp_path), kernel_name="mine")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    return "mine"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_class_of_a_cell_is_trained_by_workers_that_stay(kernel):
    cells = [nbformat.v4.new_code_cell(source) for source in (DEFINE, TRAIN, AGAIN, CHANGED)]
    notebook = nbformat.v4.new_notebook(cells=cells)

    nbclient.NotebookClient(notebook, timeout=120, kernel_name=kernel).execute()
    assert all(output.output_type == "stream" for cell in cells for output in cell.outputs)
    first, again, changed = (
        "".join(output.text for output in cell.outputs).split() for cell in notebook.cells[1:]
    )
    workers, digest = first
    assert workers == "2"
    assert again == [digest, "True", digest]
    assert len(changed[0]) == 64
    assert changed != [digest]
