"""Norms of base models on their own: list, show, carry away, bring along, check, recognise."""
