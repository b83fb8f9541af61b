"""diffusers' own tests under the tap: what passes plain must pass tapped.

python -m experiments.conformance CHECKOUT [--only schedulers] [--keyword full_loop]
"""
