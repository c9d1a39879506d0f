"""DECISIONS: what may happen to a job, and what follows. Pure: no clock, no I/O, the standard library alone.

`decide(job | None, command, facts) -> Decision` judges, `evolve(job | None, event) -> Job` follows.
A guard lives once, here, and runs under the job's row lock; see `service.store.apply`.
"""
