"""Functions of a module of the user's own, which read a value that a program may set."""

import numpy as np

SCALE = 1.0


def aggregation(grads_Sn, weights_S):
    return SCALE * grads_Sn.mean(axis=0)


def data_distribution(epoch):
    return np.roll(np.arange(epoch.n_samples), int(SCALE))


def task_assignment(n_tasks, speeds_W):
    return [int(SCALE) % len(speeds_W)] * n_tasks
