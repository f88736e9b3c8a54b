"""A smaller adapter with a known error, from the factors alone."""
