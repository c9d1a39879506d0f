"""The embedded FL runtime: numpy, weighted federated averaging, one process per site and run.

`runtime` queues and resumes runs, `training` leads one through its rounds, `site_link` and
`site_process` are the two ends of a site, `aggregation` is the mathematics. Importing this package
imports nothing else, since every site process begins with it.
"""
