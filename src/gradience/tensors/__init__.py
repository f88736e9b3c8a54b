"""Read tensor files without trusting them: safetensors by mmap, `.bin` by torch's weights-only."""
