"""Judges and teachers held against truths that do not depend on them."""
