"""Steps of ComfyUI's samplers, as the tap tells those of diffusers, and the node that records."""
