"""A server's kernels are compiled by another process, bring along no BLAS, and keep nobody from one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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


COUNTED = """
import sys
from trademl.serve import kernels, number_text, row_sum
sys.executable = sys.argv[1]
kernels.warm_up()
stats = [kernel.stats for kernel in (*number_text.KERNELS, *row_sum.KERNELS)]
print(*(sum(s.cache_misses.values()) for s in stats), *(sum(s.cache_hits.values()) for s in stats))
"""


def compiled_and_loaded(folder, *, compiler):
    """Return how often a process compiled here, and loaded, each kernel of a server."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, compiler],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    counts = [int(word) for word in done.stdout.split()]
    return counts[: len(counts) // 2], counts[len(counts) // 2 :]


def test_another_process_compiles_what_no_process_has_compiled(tmp_path):
    for _ in range(2):
        compiled, loaded = compiled_and_loaded(tmp_path, compiler=sys.executable)
        assert sum(compiled) == 0
        assert min(loaded) > 0


@pytest.mark.parametrize("compiler", ["/bin/false", ""])
def test_a_server_compiles_where_no_other_process_does(tmp_path, compiler):
    compiled, loaded = compiled_and_loaded(tmp_path, compiler=compiler)
    assert min(compiled) > 0
    assert sum(loaded) == 0
