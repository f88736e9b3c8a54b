"""What every test gets: hypothesis that a busy machine cannot fail."""

import os

from hypothesis import HealthCheck, settings

# A deadline or a slow draw says how busy the machine is, not whether a promise is kept. In CI the
# examples are the same each time; elsewhere they vary, and find more.
settings.register_profile(
    "gradience",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("gradience")
