"""Which variables put the bytes where, what each library makes of them, and what to set instead."""
