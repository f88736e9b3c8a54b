"""Is a smaller adapter really as good? Train, compress, evaluate over seeds, and judge."""
