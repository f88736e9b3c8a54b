"""One module per metric; the registry lists them."""
