"""Training of the embedded model, its teacher and its judge; not in the wheel."""
