"""Spectral audit of an adapter."""
