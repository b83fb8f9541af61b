"""One command a file; each module has a click command named ``command``."""
