"""A smaller adapter with a known error, from the factors alone.

    Adapter -rewrite-> Rewritten(tensors, config, error) -write_peft-> a directory that PEFT loads

What is beside the factors (heads, embeddings, biases) is carried over byte by byte, and every
module is multiplied by the scale that it had.
"""
