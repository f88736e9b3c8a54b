"""What every test gets: hypothesis that a busy machine cannot fail; one thread where asked."""

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from gradience.blas import one_thread

# A deadline or a slow draw says how busy the machine is, not whether a promise is kept. In CI the
# examples are the same each time; elsewhere they vary, and find more.
settings.register_profile(
    "gradience",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("gradience")


@pytest.fixture
def one_blas_thread() -> Iterator[None]:
    """As the audit runs: more threads than free cores cost ten times the time."""
    with one_thread(os.environ):
        yield


def pytest_collection_finish() -> None:
    """One thread of torch in this process: two that share a core with other tests wait by spinning.

    The models are tiny; what a process that a test starts uses is its own choice.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
