"""Experiments: what detectors and corrections do on sets of runs whose truth is known.

``python -m experiments.truth`` measures, ``python -m experiments.tables.truth`` writes the tables,
and ``python -m experiments.paper`` does the experiments of the paper. None of it is in the wheel.
"""
