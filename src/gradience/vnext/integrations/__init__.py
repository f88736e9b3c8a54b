"""Gradience inside other people's training loops; re-exports only."""
