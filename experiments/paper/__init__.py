"""The experiments of the paper: tables 1 and 2, figures 4, 7 and 8."""
