"""A machine of one's own: everything below ~/.cache/gradience."""

from gradience.storage.environment.platforms.platform import Platform

LOCAL = Platform(name="local", title="local machine", style="local", keeps="All survives.")
