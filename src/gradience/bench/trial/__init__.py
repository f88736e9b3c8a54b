"""One trial, in a process of its own: `python -m gradience.bench.trial TRIAL_DIR`."""
