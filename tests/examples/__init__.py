"""The records of `schemas/examples/`, and what writes those that we publish.

Promise: an inbound example is its file, which producers may copy and nothing generates. An outbound one is
not made up but written by the code that publishes: `python -m tests.examples` writes their files anew.
"""
