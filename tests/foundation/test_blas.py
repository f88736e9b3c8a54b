"""BLAS as this process starts it: alone, unless the user says otherwise."""

import itertools
import json
import os
import subprocess
import sys
from contextlib import ExitStack

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from gradience.blas import THREAD_VARIABLES, one_thread

_START = """
import json, os
from gradience.blas import start_alone
start_alone(os.environ)
import numpy
from threadpoolctl import threadpool_info
print(json.dumps([p["num_threads"] for p in threadpool_info() if p["internal_api"] == "openblas"]))
"""


def threads_of_blas(**variables: str) -> list[int]:
    """Threads of each OpenBLAS of a new process that imports numpy after `start_alone`."""
    # A command that ran in this process has asked OpenBLAS for one thread by default.
    own = (*THREAD_VARIABLES, "OPENBLAS_DEFAULT_NUM_THREADS")
    plain = {name: value for name, value in os.environ.items() if name not in own}
    done = subprocess.run(
        [sys.executable, "-c", _START], env=plain | variables, capture_output=True, check=True
    )
    found: list[int] = json.loads(done.stdout)
    if not found:
        pytest.skip("numpy has another BLAS here")
    return found


def test_blas_starts_no_threads() -> None:
    assert set(threads_of_blas()) == {1}


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")
@pytest.mark.parametrize("variable", ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"])
def test_the_threads_that_the_user_asks_for_are_started(variable: str) -> None:
    assert set(threads_of_blas(**{variable: "2"})) == {2}


def threads_now() -> set[int]:
    """Threads of each BLAS of this process."""
    np.dot([1.0], [1.0])
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_whoever_leaves_first_the_last_gives_back_what_was_there_before(
    order: tuple[int, ...],
) -> None:
    """Blocks of several threads overlap in any order."""
    with threadpool_limits(limits=2, user_api="blas"):
        before = threads_now()
        if before != {2}:
            pytest.skip("BLAS has one thread here")
        blocks = [ExitStack() for _ in range(3)]
        for block in blocks:
            block.enter_context(one_thread({}))
        for index in order:
            assert threads_now() == {1}
            blocks[index].close()
        assert threads_now() == before


def test_an_error_inside_gives_the_threads_back_too() -> None:
    before = threads_now()
    with pytest.raises(ZeroDivisionError), one_thread({}):
        raise ZeroDivisionError
    assert threads_now() == before
