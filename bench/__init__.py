"""Measurements of the service on real parts, each beside its baselines in the same run.

Lies beside `service` in a checkout and inside it in a wheel, so modules here import one another relatively.
Every figure comes from processes of their own on a stack of their own; nothing here is imported by the
service but by its `bench` command.
"""
