"""The work: what takes time, waits for somebody, or is retried later.

One file per step. A step reads through the three ports, calls an adapter or the object store, and hands
what it learned to `store.apply` as a command; it never changes a job itself. What makes this safe: every
piece of work is held under a lease with a token, everything that can be lost is committed before the call
that could lose it, and an answer is evidence that is kept whatever happened meanwhile.
`supervisor.StepSupervisor` puts the steps together and runs them.
"""
