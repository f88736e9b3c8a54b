"""Move a cache to another place: copy, verify, swap, and only then let the old bytes go."""
