"""One BLAS thread within a fit, in whichever thread it runs, and as many as before afterwards."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.linalg  # noqa: F401  (so that its BLAS is loaded too)
from threadpoolctl import threadpool_info, threadpool_limits

from phalanx.clusters.threads import one_blas_thread

SOON = 30.0  # seconds; nobody waits for so long unless something is wrong


def counts():
    """Threads of NumPy's BLAS and of SciPy's."""
    assert np.ones(2) @ np.ones(2) == 2
    return {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}


def within():
    with one_blas_thread():
        return counts()


def elsewhere(function):
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result(SOON)


@pytest.fixture(autouse=True)
def two_threads():
    """As on any machine of several cores."""
    with threadpool_limits(2, "blas"):
        assert counts() == {2}
        yield
        assert counts() == {2}


def test_in_any_thread_after_one_in_another():
    assert [within(), elsewhere(within), elsewhere(within), within()] == [{1}] * 4
    assert counts() == {2}


def test_while_another_thread_has_set_a_limit():
    with threadpool_limits(3, "blas"):
        assert elsewhere(within) == {1}
        assert counts() == {3}


def test_others_may_set_limits_afterwards():
    def limited():
        with threadpool_limits(3, "blas"):
            return counts()

    assert within() == {1}
    assert elsewhere(limited) == {3}


def test_the_last_one_out_lifts_the_limit():
    is_in, first_is_out = threading.Event(), threading.Event()

    def last():
        with one_blas_thread():
            is_in.set()
            assert first_is_out.wait(SOON)
            return counts()

    with ThreadPoolExecutor(1) as executor:
        with one_blas_thread():
            other = executor.submit(last)
            assert is_in.wait(SOON)
        first_is_out.set()
        assert other.result(SOON) == {1}
    assert counts() == {2}
