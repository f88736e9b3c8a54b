"""Whether the files in the caches are what they should be, from what the caches themselves know."""
