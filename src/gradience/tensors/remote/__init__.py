"""Tensors of files that are not here: read by range, one ahead, straight into memory."""
