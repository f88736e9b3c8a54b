"""`from gradience.vnext.integrations.hf import GradienceCallback`."""

from gradience.integrations.hf import GradienceCallback, guard
from gradience.storage.guard.records import GuardEvent

__all__ = ["GradienceCallback", "GuardEvent", "guard"]
