"""Names promised to users; re-exports only."""
