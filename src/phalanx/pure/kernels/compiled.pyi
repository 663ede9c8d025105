"""The kernels of numpy_kernels.py, compiled from compiled.c."""

from phalanx.pure.kernels.numpy_kernels import *  # noqa: F403
