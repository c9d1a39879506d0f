"""EVENT OUT: every event of the outbox visible exactly once on the lifecycle topic, in position order.

`relay` leads all partitions while it holds the `lease`; `recover` reads from the log how far it
holds the events; `publish` sends events and the jobs' current states in one Kafka transaction.
`side_publisher` sends what is last-value or append-only (net status, tombstones, dead letters) at least once,
apart from the lifecycle, so that nothing there can hold back a lifecycle event.
"""
