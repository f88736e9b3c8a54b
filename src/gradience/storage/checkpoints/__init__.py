"""Checkpoints of a training run: which one a resume can use, what is broken, what may go."""
