"""Kernels: the loops over arrays in which a multi-layer perceptron and its optimiser spend what
time matrix products leave.

Compiled where phalanx was installed with a C compiler at hand, else NumPy's: the same bits.
"""

try:
    import phalanx.pure.kernels.compiled as form
except ImportError:
    import phalanx.pure.kernels.numpy_kernels as form  # type: ignore[no-redef]

IS_COMPILED = form.__name__.endswith(".compiled")

BAND = 32  # outputs that a sparse product works on at a time
add_bias = form.add_bias
add_scaled = form.add_scaled
adam = form.adam
correlate_entries = form.correlate_entries
divide_by_sum = form.divide_by_sum
project_entries = form.project_entries
pull = form.pull
relu = form.relu
relu_backward = form.relu_backward
shrink = form.shrink
subtract_max = form.subtract_max
take_classes = form.take_classes
weighted_sum = form.weighted_sum
