"""The base model: find its tensors, measure their norms, remember them."""
