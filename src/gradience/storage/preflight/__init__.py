"""Before a run: where its bytes will go, and whether they fit."""
