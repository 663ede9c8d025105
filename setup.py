"""The kernels, compiled: what pyproject.toml has no settled words for yet."""

from setuptools import Extension, setup

KERNELS = "src/phalanx/pure/kernels/"
EXACT = ["-ffp-contract=off"]  # see loops.h
FAST = ["-O3", "-fno-math-errno", "-fno-trapping-math"]

setup(
    ext_modules=[
        Extension(
            "phalanx.pure.kernels.compiled",
            [KERNELS + "compiled.c"],
            depends=[KERNELS + "loops.h"],
            extra_compile_args=[
                "-O3",
                "-ffp-contract=off",
                "-fno-math-errno",
                "-fno-trapping-math",
            ],
            py_limited_api=True,
            optional=True,  # without a compiler they are NumPy's: slower, the same bits
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
