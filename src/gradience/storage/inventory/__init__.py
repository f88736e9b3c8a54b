"""What lies in which cache, what it takes and shares, and what deleting it would give back."""
