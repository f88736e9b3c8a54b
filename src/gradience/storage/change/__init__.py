"""Changing the disk: a plan is shown, apply checks it again, a receipt says what came of it."""
