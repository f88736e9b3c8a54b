"""What every test gets: hypothesis that a busy machine cannot fail; one thread where asked."""

import os
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
