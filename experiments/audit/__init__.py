"""Audit: faults that were planted, and sound settings in which there are none."""
