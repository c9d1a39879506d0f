"""BROKER: clients whose every wait has a deadline, the topics, and the partition of a key.

Nothing here knows what a record means. `clients` makes consumers, producers and admin clients from one
`Connection`; `topics` names, makes and verifies the topics.
"""

#: A topic's real name and the number of one of its partitions.
PartitionId = tuple[str, int]
