"""Inside other people's training loops."""
