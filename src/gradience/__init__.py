"""Gradience: look at a LoRA adapter, and say what it learned."""

__version__ = "0.1.0"
