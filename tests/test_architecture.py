"""The floor plan holds: imports point downwards, and the pure modules know no I/O."""

import ast
from pathlib import Path

import pytest

import phalanx

SOURCE = Path(phalanx.__file__).parent

# Top to bottom: a module may import from its own floor and from those below.
FLOORS = [
    ["cli", "__main__"],
    ["report", "runs"],
    ["fitting"],
    ["estimators"],
    ["training"],
    ["clusters"],
    ["engine"],
    ["job", "local"],
    ["exchange", "models"],
    ["data", "run", "arena", "testing", "references"],
    ["pure", "errors", "warning"],
]  # fmt: skip
FLOOR = {name: floor for floor, names in enumerate(reversed(FLOORS)) for name in names}
PURE = [SOURCE / "errors.py", *sorted((SOURCE / "pure").rglob("*.py"))]
IMPURE = {
    "os", "time", "socket", "mmap", "threading", "subprocess", "multiprocessing", "pathlib", "io",
    "signal", "select", "tempfile", "shutil", "sys",
}  # fmt: skip


def modules():
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), path


def imports(path):
    """(module, is at the top level of the file) of every import."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in tree.body) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and id(node) not in typing_only:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            submodules = [name for name in inner if name in MODULES]
            yield from ((name, node in tree.body) for name in submodules or [node.module or ""])


MODULES = {f"phalanx.{name}" for name, _ in modules()}
INNER = [(name, path) for name, path in modules() if name != "__init__"]


@pytest.mark.parametrize(("name", "path"), INNER, ids=[name for name, _ in INNER])
def test_imports_point_downwards(name, path):
    here = FLOOR[name.split(".")[0]]
    for imported, _ in imports(path):
        if imported.startswith("phalanx."):
            assert FLOOR[imported.split(".")[1]] <= here, f"{name} imports {imported}"


def test_there_is_no_cycle():
    graph = {
        name: {i.removeprefix("phalanx.") for i, _ in imports(path) if i.startswith("phalanx.")}
        for name, path in INNER
    }
    done: set[str] = set()
    while len(done) < len(graph):
        ready = {n for n, needs in graph.items() if n not in done and needs & set(graph) <= done}
        assert ready, f"a cycle among {sorted(set(graph) - done)}"
        done |= ready


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.stem)
def test_pure_modules_know_no_input_output_clock_or_processes(path):
    used = {imported.split(".")[0] for imported, _ in imports(path)}
    assert not used & IMPURE


def test_files_stay_short():
    long = {
        name: lines
        for name, path in modules()
        if (lines := len(path.read_text().splitlines())) > 420
    }
    assert not long
