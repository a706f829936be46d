"""A server's kernels bring along no BLAS, and keep nobody from one."""

from __future__ import annotations

import subprocess
import sys

LOADED = """
import sys
from trademl.serve import kernels
kernels.warm_up()
print("scipy.linalg" in sys.modules)
import numpy as np
from numba import njit
from scipy.linalg import norm
dot = njit(lambda a, b: np.dot(a, b))
print(dot(np.ones(3), np.full(3, 2.0)), norm([3, 4]))
"""


def test_no_blas_is_loaded_and_whoever_needs_one_has_it():
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.split() == ["False", "6.0", "5.0"]
