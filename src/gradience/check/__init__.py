"""A configuration judged before it burns compute."""
