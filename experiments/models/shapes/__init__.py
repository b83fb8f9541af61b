"""A small model of SIMPLE SHAPES."""
