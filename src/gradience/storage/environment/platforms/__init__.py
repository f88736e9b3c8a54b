"""Kinds of machine: how each announces itself, and which of its disks is the big one."""

from gradience.storage.environment.platforms.detection import Detected, detect
from gradience.storage.environment.platforms.listed import PLATFORMS
from gradience.storage.environment.platforms.platform import Platform

__all__ = ["PLATFORMS", "Detected", "Platform", "detect"]
