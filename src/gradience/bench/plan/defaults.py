"""Defaults that a config does not spell out, and that both the plan and the trials go by."""

HEAL_SHARE = 0.1
"""Steps of a heal by default, as a share of the probe's."""

HEAL_RATE = 0.1
"""Learning rate of a heal by default, as a share of the probe's."""
