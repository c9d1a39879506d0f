"""A world for the steps: fakes behind the three ports, a clock that jumps, and what must always hold."""
