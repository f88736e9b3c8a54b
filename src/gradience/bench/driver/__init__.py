"""Trials are run in order, within the disk budget; what is done stays done."""
