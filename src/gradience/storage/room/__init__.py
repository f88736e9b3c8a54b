"""How much can still be written at a place, by every limit that there is, shown or not."""
