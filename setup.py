"""What is compiled, in words that pyproject.toml does not have: the kernels, from C, and the step
of a worker, from the Python that runs in its place where there is no compiler."""

import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, PlatformError

KERNELS = "src/phalanx/pure/kernels/"
EXACT = ["-fno-fast-math", "-ffp-contract=off"]  # see loops.h
# After EXACT: -fno-fast-math undoes them, and where errno is set, roots are taken one by one.
FAST = ["-O3", "-fno-math-errno", "-fno-trapping-math"]
STEP = ("engine", "exchange")  # folders of src/phalanx

kernels = Extension(
    "phalanx.pure.kernels.compiled",
    [KERNELS + "compiled.c"],
    depends=[KERNELS + name for name in ("arrays.h", "loops.h", "sparse.h", "widths.h")],
    extra_compile_args=[*EXACT, *FAST],
    optional=True,  # without a compiler they are NumPy's: slower, the same bits
)


def step() -> list[Extension]:
    """A library of all modules of the step, and what stands for each of them. For wheels alone:
    what is edited where it lies is to run as it stands."""
    if "bdist_wheel" not in sys.argv or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return []
    from mypyc.build import mypycify

    folders = [Path("src/phalanx", name) for name in STEP]
    modules = sorted(str(path) for folder in folders for path in folder.glob("[!_]*.py"))
    # What is imported from elsewhere is taken for anything: so it is the same C whatever else is
    # installed, and scripts/check looks at the types.
    options = ["--config-file=", "--follow-imports=skip", "--ignore-missing-imports"]
    try:
        made = mypycify([*options, *modules], opt_level="1", multi_file=True, group_name="phalanx")
    except SystemExit:  # it has said why; a later version may refuse what this one takes
        return []
    for extension in made:  # compilers differ in what they warn of
        flags = extension.extra_compile_args
        extension.extra_compile_args = [flag for flag in flags if flag != "-Werror"]
    return list(made)


class AllOrNothing(build_ext):
    """Where the step is not to be compiled, nothing of it is: half of it could not be imported."""

    def build_extensions(self) -> None:
        try:
            super().build_extensions()
        except (CompileError, LinkError, PlatformError) as error:
            self.warn(f"the step of a worker stays Python, which is slower: {error}")
            for extension in self.extensions[1:]:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions[1:] = []
            super().build_extensions()


setup(ext_modules=[kernels, *step()], cmdclass={"build_ext": AllOrNothing})
