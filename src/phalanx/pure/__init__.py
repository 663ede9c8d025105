"""The rules of a training, each by itself: no input or output, no clock and no processes."""
