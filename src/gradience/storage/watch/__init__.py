"""How full the disks are, how fast the caches grow, and when it will be too late."""
