"""One module per key dialect; the registry lists them."""
