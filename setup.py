"""The kernels, compiled: what pyproject.toml has no settled words for yet."""

import sysconfig

from setuptools import Extension, setup

KERNELS = "src/phalanx/pure/kernels/"
EXACT = ["-fno-fast-math", "-ffp-contract=off"]  # see loops.h
# After EXACT: -fno-fast-math undoes them, and where errno is set, roots are taken one by one.
FAST = ["-O3", "-fno-math-errno", "-fno-trapping-math"]
IS_STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")  # one interface for all versions

setup(
    ext_modules=[
        Extension(
            "phalanx.pure.kernels.compiled",
            [KERNELS + "compiled.c"],
            depends=[KERNELS + name for name in ("arrays.h", "loops.h", "sparse.h", "widths.h")],
            extra_compile_args=[*EXACT, *FAST],
            py_limited_api=IS_STABLE,
            optional=True,  # without a compiler they are NumPy's: slower, the same bits
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if IS_STABLE else {},
)
