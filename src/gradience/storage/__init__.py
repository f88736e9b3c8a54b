"""Where the bytes go on this machine: caches, mounts, limits, environment."""
