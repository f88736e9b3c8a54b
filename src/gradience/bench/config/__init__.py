"""A config file, checked in all its parts, as settings."""
