"""The doctor: where each library's bytes really go on this machine, and what is wrong with that."""
