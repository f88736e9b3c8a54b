"""The log of a training run: one JSON object a line, and what can be read out of it."""
