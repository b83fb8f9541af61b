"""Sets of runs: recorded, planted with faults, drawn from an exact score or from rules."""
