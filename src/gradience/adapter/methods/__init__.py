"""How each method forms its change from the tensors it stores: no names, no config, only maths."""
