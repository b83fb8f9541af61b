"""``emoji``: a small class-conditional diffusion model of 64x64 colour emoji, and its training."""
