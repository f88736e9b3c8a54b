"""A training run that survives a full disk: what to do before a save, and when one failed."""
