"""Gradience: look at a LoRA run, what its adapter learned and where its bytes go."""

__version__ = "0.1.0"
