"""A sim for the steps: fakes behind the four ports, a clock that jumps, and what must always hold."""
