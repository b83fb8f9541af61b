"""Judges and teachers compared with truths that do not depend on them."""
