"""Federated-learning jobs, driven by events. The way of an event:

a record on Kafka -> `ingest.consumer` reads a batch, `contracts.inbound` makes commands of it ->
`store.apply` locks the jobs and lets `domain.decide` judge and `domain.job.evolve` follow, and writes jobs,
events, offsets in one transaction -> `relay` publishes the events -> `steps` claim what is ready, stage its
bundle (`bundles`), hand it to an adapter (`nets`), watch, stop and collect it, each time by commands to
`store.apply` again.
"""
