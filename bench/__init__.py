"""Measurements of the service on real parts, each beside its baselines in the same run.

Part of a checkout, not of the wheel: `python -m bench --help`, or `make bench`. Every figure comes from
processes of their own on a stack of their own.
"""
