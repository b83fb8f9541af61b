"""Remedies: what of all that is known to help does so for one's own recorded pipeline."""
