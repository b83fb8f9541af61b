"""Small models for experiments, each a plain diffusers folder with its training."""
